"""The pages in a browser, and what they show as JSON: `status` is of the jobs, `tracks` of a task's tracks."""

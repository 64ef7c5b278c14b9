"""The HTTP routes: Label Studio's ML backend protocol, and the pages for the jobs and for a task's tracks."""

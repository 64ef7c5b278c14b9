"""The job queue: what a prompt asks for, which job runs next, and what it has computed.

`spec` says what a job does; it is stored as JSON. `schedule` is the order in which a session goes through the video.
`store` owns the database (`schema`, `rows`); nothing else writes to it. `saved_masks` reads it from other processes.
`job` is one job in memory. `scheduler` owns all of them and the threads that fetch videos and run jobs; `job_queue`
decides which job is next, `executor` runs it on the worker and saves its results.
`propagation` and `track_buffer` hold the tracks that a job has computed so far.
`worker` is a process of its own: it owns the engine and the open video. `worker_client` owns that process and is the
server's side of it; `messages` is what the two send each other.
`status` and `metrics` only read: they are what people and Prometheus see.
"""

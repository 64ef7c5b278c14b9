"""The job queue: what a prompt asks for, which job runs next, and what it has computed.

```
requests ──> scheduler ──> job_queue <── job_runner ──> executor ──> worker_client ──pipe── worker
                 │            ^  ^            │             │             (a process: engine, open video)
                 │            │  └─ video_fetcher           │
                 └────────────┴── job_ends ──────> store <──┘
                                   database (one SQLite file) · records · retention · state_files (a folder)
```

Who owns what, and which lock guards it:

JobQueue      jobs in memory, their order and their states       `JobQueue.changed`, never held while the disk works
Scheduler     that equal requests get one job                    `_asking`, taken before all others
JobEnds       ends of jobs that are not on disk yet              `_writing`
Database      the two connections                                one lock each; no other lock is taken under them
WorkerClient  the worker process and its connection              its own, taken last; `worker_launcher` starts it
PropagationRun  the tracks of a job so far: written by the runner's thread alone, read by all

Locks are taken in the order of this table. Trouble of the disk is an error of one kind (`StoreError`): the runner and
the fetcher wait until it is over, a request is told. Computed frames stay: a job continues from its newest state, or
from its prompts if there is none, and only the frames that are missing are added.

`spec` says what a job does; it is stored as JSON. `schedule` is the order in which a session goes through the video.
`propagation` and `track_buffer` hold the tracks that a job has computed so far. `schema` and `rows` say how the file
is laid out; only `database` opens it, except for `saved_masks`, which reads it from other processes.
`messages` is what a server and its worker send each other. `status`, `task_status` and `metrics` only read.
"""

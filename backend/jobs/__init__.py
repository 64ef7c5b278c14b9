"""The job queue: what a prompt asks for, which job runs next, and what it has computed.

```
requests ──> scheduler ──> job_queue <── job_runner ──> executor ──> worker_client ──pipe── worker (a process)
                 │            ^  ^            │             │             │                    │
                 │            │  └─ video_fetcher     job_recorder   preview_client     worker_run: a job's session
                 │            │               │             │        worker_link        worker_previews
                 └────────────┴── job_ends ───┴──> store <──┘ <── store_keeper
                                   database (one SQLite file) · records · retention · state_files (a folder)
```

From `job_runner` to the right, there is one of each for every worker: `job_runners` holds the runners, `worker_pool`
the workers, `job_queue` a `slot` for what each of them runs. `placement` chooses the job that a worker takes and the
worker that makes room, and `video_homes` knows which worker has which video; `preview_router` sends previews there.

Who owns what, and which lock guards it, in the order in which locks are taken:

Scheduler       that equal requests get one job                  `_asking`
JobQueue        jobs in memory, their order, their states and    `JobQueue.changed`, never held while the disk works
                what runs on each worker (`slots`)
JobEnds         ends of jobs that are not on disk yet            `_writing`, never together with `JobQueue.changed`
Database        the two connections                              one lock each
PreviewRouter   which worker previews a session's prompts        its own, brief
WorkerClient    one worker                                       `_lock`, brief
PreviewClient   previews that wait for their masks               its own, brief
VideoHomes      which worker has which video                     its own, brief
EndedResults    the tracks of a few jobs that have ended         its own, brief
StateFiles      the states of jobs that have not ended           none: one thread writes those of a job
PropagationRun  the tracks of a job so far                       none: its runner's thread writes, all may read

Threads: `job_runner` has one for each worker, which alone talks to it about runs and writes the results of its jobs;
`video_fetcher` has a few, `store_keeper` one, `worker_client` one that reads what the worker sends, `worker_link` one
that writes. Requests bring their own.

Trouble of the disk is an error of one kind (`StoreError`): the runner and the fetcher wait until it is over, a request
is told. Computed frames stay: a job continues from its newest state, or from its prompts if there is none, and only the
frames that are missing are added.

`spec` says what a job does; it is stored as JSON. `schedule` is the order in which a session goes through the video.
`propagation` and `track_buffer` hold the tracks that a job has computed so far, `ended_results` those of ended jobs.
`schema` and `rows` say how the file is laid out; only `database` opens it, except for `saved_masks`, which reads it
from other processes.
`messages` is what a server and its worker send each other; `worker_link` is all that the server needs of a worker,
wherever it runs. `worker_launcher` starts processes, `ray_link` actors: `node_worker` is what runs in these, `carried`
brings them the files that messages name, and `node_videos` keeps the videos of a node. `status`, `task_status` and
`metrics` only read.
"""

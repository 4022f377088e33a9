//! The tables, by the steps that have led to them.

/// What makes the schema: the entry at index N leads from version N to version N + 1. An entry that has
/// been released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    // Unfinished jobs come and go in a small table of their own. So rows that grow during a job's life
    // leave no holes in the large table, which is written in the order of the ends (`seq`), and the
    // index of labels holds a job's final state, which lets a page by state and label read only
    // what it shows.
    "CREATE TABLE live (
        id BLOB NOT NULL PRIMARY KEY,
        state INTEGER NOT NULL,
        name TEXT,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        job TEXT NOT NULL
    ) STRICT;
    CREATE TABLE finished (
        seq INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        state INTEGER NOT NULL,
        name TEXT,
        queue TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        job TEXT NOT NULL
    ) STRICT;
    CREATE INDEX finished_by_state ON finished (state, id);
    CREATE INDEX finished_by_expiry ON finished (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE labels (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        state INTEGER NOT NULL,
        id BLOB NOT NULL,
        PRIMARY KEY (key, value, state, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE idempotency (
        actor TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        id BLOB NOT NULL,
        PRIMARY KEY (actor, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_by_job ON idempotency (id);
    CREATE TABLE secrets (
        id BLOB NOT NULL PRIMARY KEY,
        secrets TEXT NOT NULL
    ) STRICT;
    CREATE TABLE totals (finished INTEGER NOT NULL) STRICT;
    INSERT INTO totals VALUES (0);",
    // What is told of jobs, in its order. The newest number is kept apart from the rows, as the newest
    // rows go where their job is removed.
    "CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        job BLOB NOT NULL,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_job ON events (job);
    ALTER TABLE totals ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE totals ADD COLUMN pruned_events INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE totals ADD COLUMN source TEXT NOT NULL DEFAULT '';
    UPDATE totals SET source = lower(hex(randomblob(16)));",
    // A delivery has its event with it, as the events' own table forgets.
    "CREATE TABLE webhooks (
        job BLOB NOT NULL,
        number INTEGER NOT NULL,
        url TEXT NOT NULL,
        secret TEXT,
        PRIMARY KEY (job, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        seq INTEGER NOT NULL,
        job BLOB NOT NULL,
        webhook INTEGER NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        due_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX outbox_by_job ON outbox (job);
    CREATE INDEX outbox_by_time ON outbox (due_at, id);",
    // Each page that a commit touches is written to the log, so fewer are touched: the totals as they are with the
    // newest event are in that event's row. (Unfinished jobs stay a table with an index beside it: in one without
    // rowids, each comparison would read the whole of a row, which can be a megabyte.)
    "ALTER TABLE events ADD COLUMN finished INTEGER NOT NULL DEFAULT 0;",
    // Who waits and who runs is in the rows of jobs; of a queue only what is set is kept, and for a rate its last starts.
    "CREATE TABLE queues (
        name TEXT NOT NULL PRIMARY KEY,
        settings TEXT NOT NULL,
        version INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE queue_starts (
        queue TEXT NOT NULL,
        at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX queue_starts_by_time ON queue_starts (queue, at);
    INSERT INTO labels (key, value, state, id)
        SELECT '#queue', queue, state, id FROM finished WHERE queue <> 'default';",
    "INSERT INTO labels (key, value, state, id)
        SELECT '#name', name, state, id FROM finished WHERE name IS NOT NULL;",
    // How many jobs of a batch have ended, and how, is counted by the transactions of their ends: their own rows expire.
    "CREATE TABLE batches (
        id BLOB NOT NULL PRIMARY KEY,
        state INTEGER NOT NULL,
        total INTEGER NOT NULL,
        succeeded INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        canceled INTEGER NOT NULL,
        timed_out INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        finished_at INTEGER,
        expires_at INTEGER,
        batch TEXT NOT NULL
    ) STRICT;
    CREATE INDEX batches_by_expiry ON batches (expires_at) WHERE expires_at IS NOT NULL;
    CREATE INDEX batches_running ON batches (id) WHERE finished_at IS NULL;
    CREATE TABLE batch_groups (
        batch BLOB NOT NULL,
        number INTEGER NOT NULL,
        key TEXT NOT NULL,
        first BLOB NOT NULL,
        count INTEGER NOT NULL,
        succeeded INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        canceled INTEGER NOT NULL,
        PRIMARY KEY (batch, number)
    ) STRICT, WITHOUT ROWID;",
    // No time up to `seen` is looked at again, and `turn` lets each step be made once.
    "CREATE TABLE schedules (
        name TEXT NOT NULL PRIMARY KEY,
        created_by TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        version INTEGER NOT NULL,
        definition TEXT NOT NULL,
        seen INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        progress TEXT NOT NULL
    ) STRICT;",
    // What a list does not show: the chain of pages of a large row would be read for each job of it.
    "CREATE TABLE bulk (
        id BLOB NOT NULL PRIMARY KEY,
        parts TEXT NOT NULL
    ) STRICT;",
    "INSERT INTO labels (key, value, state, id)
        SELECT '#node', json_extract(job, '$.claim.node'), state, id FROM finished
        WHERE json_extract(job, '$.claim.node') IS NOT NULL;",
    // How much output is kept is a total as the number of finished jobs is: in a row of its own, and in that of each event.
    "INSERT INTO labels (key, value, state, id)
        SELECT '#by', json_extract(job, '$.created_by'), state, id FROM finished
        WHERE json_extract(job, '$.created_by') <> 'anonymous';
    ALTER TABLE events ADD COLUMN output INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE totals ADD COLUMN output INTEGER NOT NULL DEFAULT 0;
    UPDATE totals SET output = (
        SELECT ifnull(sum(ifnull(json_extract(job, '$.output.next_offset'), 0)
            - ifnull(json_extract(job, '$.output.first_offset'), 0)), 0)
        FROM finished WHERE json_extract(job, '$.claim') IS NULL);
    UPDATE events SET output = (SELECT output FROM totals) WHERE seq = (SELECT max(seq) FROM events);",
    // Short output of jobs that are over, by the number of their row, so that one page of one tree is written.
    "CREATE TABLE outputs (
        seq INTEGER PRIMARY KEY,
        output BLOB NOT NULL
    ) STRICT;",
];

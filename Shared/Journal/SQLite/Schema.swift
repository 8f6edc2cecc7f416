import GRDB

/// The tables, and how earlier versions of them become today's.
enum Schema {
  static let versions = ["1", "2", "3", "4", "5"]

  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1") { try $0.execute(sql: first) }
    migrator.registerMigration("2") { try $0.execute(sql: second) }
    migrator.registerMigration("3") { try $0.execute(sql: third) }
    migrator.registerMigration("4") { try $0.execute(sql: fourth) }
    migrator.registerMigration("5") { try $0.execute(sql: fifth) }
    return migrator
  }

  /// Refuses a journal that a later version of this program has written.
  static func check(_ path: String) throws(JournalError) {
    let applied: [String] = try JournalError.wrap("read the version of \(path)") {
      var configuration = Configuration()
      configuration.readonly = true
      let database = try DatabaseQueue(path: path, configuration: configuration)
      defer { try? database.close() }
      return try database.read { db in
        try db.tableExists("grdb_migrations") ? String.fetchAll(db, sql: "SELECT identifier FROM grdb_migrations") : []
      }
    }
    if let unknown = applied.first(where: { !versions.contains($0) }) {
      throw .foreign(
        path: path,
        reason: "its schema has the version \(unknown), this program knows \(versions.joined(separator: ", "))")
    }
  }

  /// * `facts`: how often the file was opened; `run` counts openings with jobs that have not ended.
  /// * `jobs`: what was accepted, in order.
  /// * `pictures`: how each image of a job ended; state 0 is open, 1 finished, 2 failed.
  /// * `outputs`, `checkpoints`: what need not be computed again for an open image; `attempts`: those that may still
  ///   run.
  /// * `payloads`: the bytes that those refer to.
  private static let first = """
    CREATE TABLE facts (epoch INTEGER NOT NULL, run INTEGER NOT NULL) STRICT;
    INSERT INTO facts VALUES (0, 0);
    CREATE TABLE jobs (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      tenant TEXT NOT NULL,
      submitted_ms INTEGER NOT NULL,
      deadline_ms INTEGER,
      ended_ms INTEGER,
      picture_count INTEGER NOT NULL,
      request BLOB NOT NULL,
      request_crc INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX jobs_of_tenant ON jobs (tenant, number);
    CREATE INDEX jobs_by_end ON jobs (ended_ms);
    CREATE TABLE payloads (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL,
      dtype INTEGER NOT NULL,
      shape TEXT NOT NULL,
      crc INTEGER NOT NULL,
      bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE pictures (
      job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
      picture INTEGER NOT NULL,
      state INTEGER NOT NULL DEFAULT 0,
      result INTEGER REFERENCES payloads (id),
      result_bytes INTEGER NOT NULL DEFAULT 0,
      prompt_tokens INTEGER NOT NULL DEFAULT 0,
      failure_code INTEGER,
      failure_message TEXT,
      failure_field TEXT,
      PRIMARY KEY (job, picture)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX pictures_by_result ON pictures (result);
    CREATE TABLE outputs (
      job INTEGER NOT NULL,
      picture INTEGER NOT NULL,
      task INTEGER NOT NULL,
      payload INTEGER NOT NULL REFERENCES payloads (id),
      numerics_class TEXT NOT NULL,
      PRIMARY KEY (job, picture, task),
      FOREIGN KEY (job, picture) REFERENCES pictures (job, picture) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX outputs_by_payload ON outputs (payload);
    CREATE TABLE checkpoints (
      job INTEGER NOT NULL,
      picture INTEGER NOT NULL,
      task INTEGER NOT NULL,
      steps INTEGER NOT NULL,
      payload INTEGER NOT NULL REFERENCES payloads (id),
      numerics_class TEXT NOT NULL,
      PRIMARY KEY (job, picture, task),
      FOREIGN KEY (job, picture) REFERENCES pictures (job, picture) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX checkpoints_by_payload ON checkpoints (payload);
    CREATE TABLE attempts (
      job INTEGER NOT NULL,
      picture INTEGER NOT NULL,
      task INTEGER NOT NULL,
      number INTEGER NOT NULL,
      PRIMARY KEY (job, picture, task),
      FOREIGN KEY (job, picture) REFERENCES pictures (job, picture) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE idempotency_keys (
      tenant TEXT NOT NULL,
      key TEXT NOT NULL,
      digest BLOB NOT NULL,
      job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
      PRIMARY KEY (tenant, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job);
    """

  /// * `inputs`: images that requests begin with, by their content.
  /// * `job_inputs`: which job has which; an image goes with the last job that has it.
  private static let second = """
    CREATE TABLE inputs (
      digest TEXT PRIMARY KEY,
      crc INTEGER NOT NULL,
      bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE job_inputs (
      job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
      digest TEXT NOT NULL REFERENCES inputs (digest),
      PRIMARY KEY (job, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX job_inputs_by_digest ON job_inputs (digest);
    """

  /// * `jobs.model`, `jobs.state`: what lists of jobs ask for; see `StoredState`.
  /// * `job_tags`: which job has which tag, in the order of lists.
  private static let third = """
    ALTER TABLE jobs ADD COLUMN model TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET model = CASE WHEN json_valid(CAST(request AS TEXT))
      THEN coalesce(CAST(json_extract(CAST(request AS TEXT), '$.card.modelID') AS TEXT), '') ELSE '' END;
    UPDATE jobs SET state = CASE
      WHEN ended_ms IS NULL THEN 0
      WHEN EXISTS (SELECT 1 FROM pictures p WHERE p.job = jobs.number AND p.state = 2 AND p.failure_code <> 1) THEN 2
      WHEN EXISTS (SELECT 1 FROM pictures p WHERE p.job = jobs.number AND p.state = 2) THEN 3
      ELSE 1 END;
    DROP INDEX jobs_of_tenant;
    CREATE INDEX jobs_by_time ON jobs (tenant, submitted_ms);
    CREATE INDEX jobs_by_state ON jobs (tenant, state, submitted_ms);
    CREATE INDEX jobs_by_model ON jobs (tenant, model, submitted_ms);
    CREATE TABLE job_tags (
      tenant TEXT NOT NULL,
      tag TEXT NOT NULL,
      submitted_ms INTEGER NOT NULL,
      job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
      PRIMARY KEY (tenant, tag, submitted_ms, job)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX job_tags_by_job ON job_tags (job);
    """

  /// * `webhooks`: what is notified of a job.
  /// * `deliveries`: one for each event that a webhook wants; see `StoredDelivery`.
  private static let fourth = """
    CREATE TABLE webhooks (
      job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
      position INTEGER NOT NULL,
      url TEXT NOT NULL,
      host TEXT NOT NULL,
      secret TEXT,
      events TEXT NOT NULL,
      PRIMARY KEY (job, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      job INTEGER NOT NULL,
      position INTEGER NOT NULL,
      event TEXT NOT NULL,
      percent INTEGER NOT NULL,
      created_ms INTEGER NOT NULL,
      host TEXT NOT NULL,
      state INTEGER NOT NULL DEFAULT 0,
      next_ms INTEGER,
      attempts INTEGER NOT NULL DEFAULT 0,
      last_ms INTEGER,
      last_status INTEGER,
      last_error TEXT,
      UNIQUE (job, position, event, percent),
      FOREIGN KEY (job, position) REFERENCES webhooks (job, position) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX deliveries_due ON deliveries (next_ms) WHERE state = 0;
    """
  /// * `object`, `object_bytes`: where the bytes are when they are not in the row, which then has none.
  /// * `dead_objects`: objects that no row names any more and that are still to be deleted.
  /// * `facts.objects`: names the journal among those that keep their objects at one place.
  private static let fifth = """
    ALTER TABLE payloads ADD COLUMN object TEXT;
    ALTER TABLE payloads ADD COLUMN object_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX payloads_by_object ON payloads (object, object_bytes) WHERE object IS NOT NULL;
    ALTER TABLE inputs ADD COLUMN object TEXT;
    ALTER TABLE inputs ADD COLUMN object_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE UNIQUE INDEX inputs_by_object ON inputs (object, object_bytes) WHERE object IS NOT NULL;
    CREATE TABLE dead_objects (
      object TEXT PRIMARY KEY,
      object_bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER payload_object_dies AFTER DELETE ON payloads WHEN OLD.object IS NOT NULL BEGIN
      INSERT OR IGNORE INTO dead_objects VALUES (OLD.object, OLD.object_bytes);
    END;
    CREATE TRIGGER input_object_dies AFTER DELETE ON inputs WHEN OLD.object IS NOT NULL BEGIN
      INSERT OR IGNORE INTO dead_objects VALUES (OLD.object, OLD.object_bytes);
    END;
    ALTER TABLE facts ADD COLUMN objects TEXT NOT NULL DEFAULT '';
    UPDATE facts SET objects = lower(hex(randomblob(8)));
    """
}

/// The functions of version 1 of the schema: each change of the journal is one call, so that hundreds of them travel in
/// one round trip, and what a change depends on is read where it is.
///
/// Parameters have names that begin with `p_`; `p_epoch` is the opening that writes.
enum SchemaFunctions {
  /// `QI001`: fenced; `QI002`: full; `QI003`: this write was given up after its outcome was unknown.
  static let first = writing + payloads + ending + changes + deliveries

  /// All of them.
  static let names = [
    "fence", "begin_write", "count_bytes", "check_space", "insert_payload",
    "delete_unused", "release_inputs", "announce_job", "announce_end", "open_image",
    "end_image", "admit", "add_input", "keep_attempt", "keep_progress",
    "finish_image", "fail_image", "fail_job", "forget_job", "announce_open",
    "keep_delivery",
  ]

  private static let writing = """
    CREATE FUNCTION fence(p_epoch bigint, p_token bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      -- The end of a lease locks its row FOR UPDATE, so it waits for this transaction; renewals do not.
      PERFORM 1 FROM owners WHERE epoch = p_epoch AND token = p_token AND ended IS NULL FOR KEY SHARE;
      IF NOT FOUND THEN RAISE EXCEPTION 'opening % has ended', p_epoch USING ERRCODE = 'QI001'; END IF;
    END $$;
    CREATE FUNCTION begin_write(p_epoch bigint, p_token bigint, p_number bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM fence(p_epoch, p_token);
      UPDATE writes SET number = p_number WHERE epoch = p_epoch AND number < p_number AND given_up < p_number;
      IF NOT FOUND THEN RAISE EXCEPTION 'write % was given up', p_number USING ERRCODE = 'QI003'; END IF;
    END $$;
    CREATE FUNCTION count_bytes(p_epoch bigint, p_bytes bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF p_bytes <> 0 THEN UPDATE writes SET bytes = bytes + p_bytes WHERE epoch = p_epoch; END IF;
    END $$;
    CREATE FUNCTION check_space(p_max bigint, p_reserve bigint, p_digests jsonb, p_sizes jsonb)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_free bigint; v_new bigint; v_images text := '';
    BEGIN
      SELECT p_max - coalesce(sum(bytes), 0) INTO v_free FROM writes;
      SELECT coalesce(sum(size::bigint), 0) INTO v_new
      FROM ROWS FROM (jsonb_array_elements_text(p_digests), jsonb_array_elements_text(p_sizes)) AS given (digest, size)
      WHERE NOT EXISTS (SELECT 1 FROM inputs WHERE inputs.digest = given.digest);
      IF v_free < greatest(p_reserve, 65536) + v_new THEN
        IF v_new > 0 THEN v_images := '; the images of the job have ' || v_new; END IF;
        RAISE EXCEPTION '% bytes are left, and % are kept for the jobs that run%',
          greatest(v_free, 0), p_reserve, v_images
        USING ERRCODE = 'QI002';
      END IF;
    END $$;
    """

  private static let payloads = """
    CREATE FUNCTION insert_payload(
      p_epoch bigint, p_id bigint, p_name text, p_dtype bigint, p_shape text, p_crc bigint, p_bytes bytea,
      p_object text, p_object_bytes bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_crc bigint; v_size bigint; v_object text;
    BEGIN
      LOOP
        -- One encoded prompt may serve several images.
        SELECT crc, octet_length(bytes), object INTO v_crc, v_size, v_object FROM payloads
        WHERE id = p_id FOR KEY SHARE;
        IF FOUND THEN
          -- Of what is an object in one of them and bytes in the other nothing can be said.
          IF v_object IS NULL AND p_object IS NULL AND (v_crc <> p_crc OR v_size <> octet_length(p_bytes)) THEN
            RAISE EXCEPTION 'payload % is there with other bytes', p_id USING ERRCODE = 'unique_violation';
          END IF;
          RETURN;
        END IF;
        INSERT INTO payloads (id, name, dtype, shape, crc, bytes, object, object_bytes)
        VALUES (p_id, p_name, p_dtype, p_shape, p_crc, p_bytes, p_object, p_object_bytes) ON CONFLICT (id) DO NOTHING;
        IF FOUND THEN
          PERFORM count_bytes(p_epoch, octet_length(p_bytes));
          RETURN;
        END IF;
      END LOOP;
    END $$;
    CREATE FUNCTION delete_unused(p_epoch bigint, p_payloads bigint[]) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_payload bigint; v_size bigint;
    BEGIN
      FOR v_payload IN SELECT DISTINCT unnest(p_payloads) ORDER BY 1 LOOP
        -- Two openings that let go of it at a time take turns: the second one sees what the first one has deleted.
        PERFORM 1 FROM payloads WHERE id = v_payload FOR UPDATE;
        DELETE FROM payloads WHERE id = v_payload
          AND NOT EXISTS (SELECT 1 FROM outputs WHERE payload = v_payload)
          AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE payload = v_payload)
          AND NOT EXISTS (SELECT 1 FROM images WHERE result = v_payload)
        RETURNING octet_length(bytes) INTO v_size;
        IF FOUND THEN PERFORM count_bytes(p_epoch, -v_size); END IF;
      END LOOP;
    END $$;
    CREATE FUNCTION release_inputs(p_epoch bigint, p_job bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_digest text; v_size bigint;
    BEGIN
      FOR v_digest IN SELECT digest FROM job_inputs WHERE job = p_job ORDER BY digest LOOP
        PERFORM 1 FROM inputs WHERE digest = v_digest FOR UPDATE;
        DELETE FROM job_inputs WHERE job = p_job AND digest = v_digest;
        DELETE FROM inputs WHERE digest = v_digest
          AND NOT EXISTS (SELECT 1 FROM job_inputs WHERE digest = v_digest)
        RETURNING octet_length(bytes) INTO v_size;
        IF FOUND THEN PERFORM count_bytes(p_epoch, -v_size); END IF;
      END LOOP;
    END $$;
    """

  private static let ending = """
    CREATE FUNCTION announce_job(p_job bigint, p_event text, p_percent bigint, p_at bigint)
    RETURNS void LANGUAGE sql AS $$
      INSERT INTO deliveries (job, position, event, percent, created_ms, host, next_ms)
      SELECT job, position, p_event, p_percent, p_at, host, p_at FROM webhooks
      WHERE job = p_job AND p_event = ANY (string_to_array(events, ','))
        AND NOT EXISTS (
          SELECT 1 FROM deliveries d
          WHERE d.job = p_job AND d.position = webhooks.position AND d.event = p_event AND d.percent = p_percent)
      ORDER BY position
    $$;
    CREATE FUNCTION announce_end(p_job bigint, p_at bigint) RETURNS void LANGUAGE sql AS $$
      SELECT announce_job(
        p_job, CASE state WHEN 1 THEN 'job.completed' WHEN 2 THEN 'job.failed' ELSE 'job.cancelled' END, 0, p_at)
      FROM jobs WHERE number = p_job AND state IN (1, 2, 3)
    $$;
    CREATE FUNCTION open_image(p_epoch bigint, p_id text, p_image bigint) RETURNS bigint LANGUAGE sql AS $$
      SELECT number FROM jobs JOIN images ON job = number
      WHERE id = p_id AND image = p_image AND images.state = 0 AND owner = p_epoch
    $$;
    CREATE FUNCTION end_image(p_epoch bigint, p_job bigint, p_image bigint, p_at bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_payloads bigint[];
    BEGIN
      WITH gone AS (
        DELETE FROM outputs WHERE job = p_job AND image = p_image RETURNING payload
      ), gone_as_well AS (
        DELETE FROM checkpoints WHERE job = p_job AND image = p_image RETURNING payload
      )
      SELECT array_agg(payload) INTO v_payloads
      FROM (SELECT payload FROM gone UNION ALL SELECT payload FROM gone_as_well) AS both_kinds;
      DELETE FROM attempts WHERE job = p_job AND image = p_image;
      PERFORM delete_unused(p_epoch, v_payloads);
      UPDATE jobs SET ended_ms = p_at, state = CASE
        WHEN EXISTS (SELECT 1 FROM images i WHERE i.job = p_job AND i.state = 2 AND i.failure_code <> 1) THEN 2
        WHEN EXISTS (SELECT 1 FROM images i WHERE i.job = p_job AND i.state = 2) THEN 3
        ELSE 1 END
      WHERE number = p_job AND NOT EXISTS (SELECT 1 FROM images i WHERE i.job = p_job AND i.state = 0);
      IF FOUND THEN
        PERFORM release_inputs(p_epoch, p_job);
        PERFORM announce_end(p_job, p_at);
      END IF;
    END $$;
    """

  private static let changes = """
    CREATE FUNCTION admit(
      p_epoch bigint, p_id text, p_tenant text, p_submitted bigint, p_deadline bigint, p_count bigint, p_request bytea,
      p_crc bigint, p_model text, p_tags jsonb, p_webhooks jsonb, p_key text, p_digest bytea
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_job bigint;
    BEGIN
      INSERT INTO jobs (id, tenant, owner, submitted_ms, deadline_ms, image_count, request, request_crc, model)
      VALUES (p_id, p_tenant, p_epoch, p_submitted, p_deadline, p_count, p_request, p_crc, p_model)
      RETURNING number INTO v_job;
      INSERT INTO images (job, image) SELECT v_job, generate_series(0, p_count - 1);
      IF jsonb_array_length(p_tags) > 0 THEN
        INSERT INTO job_tags (tenant, tag, submitted_ms, job)
        SELECT DISTINCT p_tenant, tag, p_submitted, v_job FROM jsonb_array_elements_text(p_tags) AS tag;
      END IF;
      IF jsonb_array_length(p_webhooks) > 0 THEN
        INSERT INTO webhooks (job, position, url, host, secret, events)
        SELECT v_job, place - 1, hook ->> 0, hook ->> 1, hook ->> 2, hook ->> 3
        FROM jsonb_array_elements(p_webhooks) WITH ORDINALITY AS given (hook, place);
      END IF;
      IF p_key IS NOT NULL THEN
        INSERT INTO idempotency_keys (tenant, key, digest, job) VALUES (p_tenant, p_key, p_digest, v_job);
      END IF;
      PERFORM count_bytes(p_epoch, octet_length(p_request));
    END $$;
    CREATE FUNCTION add_input(
      p_epoch bigint, p_id text, p_digest text, p_crc bigint, p_bytes bytea, p_object text, p_object_bytes bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      LOOP
        PERFORM 1 FROM inputs WHERE digest = p_digest FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO inputs (digest, crc, bytes, object, object_bytes)
        VALUES (p_digest, p_crc, p_bytes, p_object, p_object_bytes) ON CONFLICT (digest) DO NOTHING;
        IF FOUND THEN
          PERFORM count_bytes(p_epoch, octet_length(p_bytes));
          EXIT;
        END IF;
      END LOOP;
      INSERT INTO job_inputs (job, digest) SELECT number, p_digest FROM jobs WHERE id = p_id ON CONFLICT DO NOTHING;
    END $$;
    CREATE FUNCTION keep_attempt(p_epoch bigint, p_id text, p_image bigint, p_task bigint, p_number bigint)
    RETURNS void LANGUAGE sql AS $$
      INSERT INTO attempts (job, image, task, number)
      SELECT number, p_image, p_task, p_number FROM open_image(p_epoch, p_id, p_image) AS number
      WHERE number IS NOT NULL
      ON CONFLICT (job, image, task) DO UPDATE SET number = excluded.number
    $$;
    CREATE FUNCTION keep_progress(
      p_epoch bigint, p_id text, p_image bigint, p_task bigint, p_steps bigint, p_class text, p_payload bigint,
      p_name text, p_dtype bigint, p_shape text, p_crc bigint, p_bytes bytea, p_object text, p_object_bytes bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
      v_job bigint := open_image(p_epoch, p_id, p_image);
      v_steps bigint;
      v_earlier bigint;
      v_replaced bigint[];
    BEGIN
      IF v_job IS NULL THEN RETURN; END IF;
      SELECT steps, payload INTO v_steps, v_earlier FROM checkpoints
      WHERE job = v_job AND image = p_image AND task = p_task;
      -- An older checkpoint never takes a newer one's place.
      IF p_steps <= v_steps THEN RETURN; END IF;
      PERFORM insert_payload(
        p_epoch, p_payload, p_name, p_dtype, p_shape, p_crc, p_bytes, p_object, p_object_bytes);
      IF p_steps IS NOT NULL THEN
        INSERT INTO checkpoints (job, image, task, steps, payload, numerics_class)
        VALUES (v_job, p_image, p_task, p_steps, p_payload, p_class)
        ON CONFLICT (job, image, task)
        DO UPDATE SET steps = excluded.steps, payload = excluded.payload, numerics_class = excluded.numerics_class;
      ELSE
        SELECT array_agg(payload) INTO v_replaced FROM outputs WHERE job = v_job AND image = p_image AND task = p_task;
        INSERT INTO outputs (job, image, task, payload, numerics_class)
        VALUES (v_job, p_image, p_task, p_payload, p_class)
        ON CONFLICT (job, image, task)
        DO UPDATE SET payload = excluded.payload, numerics_class = excluded.numerics_class;
        DELETE FROM checkpoints WHERE job = v_job AND image = p_image AND task = p_task;
      END IF;
      PERFORM delete_unused(p_epoch, array_remove(array_append(v_replaced, v_earlier), NULL));
    END $$;
    CREATE FUNCTION finish_image(
      p_epoch bigint, p_id text, p_image bigint, p_tokens bigint, p_at bigint, p_payload bigint, p_name text,
      p_dtype bigint, p_shape text, p_crc bigint, p_bytes bytea, p_object text, p_object_bytes bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_job bigint := open_image(p_epoch, p_id, p_image);
    BEGIN
      IF v_job IS NULL THEN RETURN; END IF;
      PERFORM insert_payload(
        p_epoch, p_payload, p_name, p_dtype, p_shape, p_crc, p_bytes, p_object, p_object_bytes);
      UPDATE images SET state = 1, result = p_payload, result_bytes = octet_length(p_bytes) + p_object_bytes,
        prompt_tokens = p_tokens
      WHERE job = v_job AND image = p_image;
      PERFORM end_image(p_epoch, v_job, p_image, p_at);
    END $$;
    CREATE FUNCTION fail_image(
      p_epoch bigint, p_job bigint, p_image bigint, p_code bigint, p_message text, p_field text, p_at bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF p_job IS NULL THEN RETURN; END IF;
      UPDATE images SET state = 2, failure_code = p_code, failure_message = p_message, failure_field = p_field
      WHERE job = p_job AND image = p_image;
      PERFORM end_image(p_epoch, p_job, p_image, p_at);
    END $$;
    CREATE FUNCTION fail_job(p_epoch bigint, p_job bigint, p_code bigint, p_message text, p_at bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_image bigint;
    BEGIN
      FOR v_image IN SELECT image FROM images WHERE job = p_job AND state <> 1 ORDER BY image LOOP
        PERFORM fail_image(p_epoch, p_job, v_image, p_code, p_message, NULL, p_at);
      END LOOP;
      UPDATE jobs SET ended_ms = p_at, state = 2 WHERE number = p_job;
      PERFORM announce_end(p_job, p_at);
      PERFORM release_inputs(p_epoch, p_job);
    END $$;
    CREATE FUNCTION forget_job(p_epoch bigint, p_job bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE v_results bigint[]; v_size bigint;
    BEGIN
      SELECT array_agg(result) INTO v_results FROM images WHERE job = p_job AND result IS NOT NULL;
      PERFORM release_inputs(p_epoch, p_job);
      DELETE FROM jobs WHERE number = p_job RETURNING octet_length(request) INTO v_size;
      IF FOUND THEN PERFORM count_bytes(p_epoch, -v_size); END IF;
      PERFORM delete_unused(p_epoch, v_results);
    END $$;
    """

  private static let deliveries = """
    CREATE FUNCTION announce_open(p_id text, p_event text, p_percent bigint, p_at bigint)
    RETURNS void LANGUAGE sql AS $$
      SELECT announce_job(number, p_event, p_percent, p_at) FROM jobs WHERE id = p_id AND ended_ms IS NULL
    $$;
    CREATE FUNCTION keep_delivery(
      p_number bigint, p_state bigint, p_next bigint, p_at bigint, p_status bigint, p_error text
    ) RETURNS void LANGUAGE sql AS $$
      UPDATE deliveries SET state = p_state, next_ms = p_next, attempts = attempts + 1, last_ms = p_at,
        last_status = p_status, last_error = p_error, claimed_by = NULL, claimed_until = NULL
      WHERE number = p_number AND state = 0
    $$;
    """
}

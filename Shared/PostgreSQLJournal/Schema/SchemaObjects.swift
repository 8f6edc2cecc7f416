/// What the schema has so that rows can name objects in place of having bytes.
///
/// * `object`, `object_bytes`: where the bytes are when they are not in the row, which then has none.
/// * `dead_objects`: objects that no row names any more and that are still to be deleted.
enum SchemaObjects {
  static let names = ["object_dies", "settle_object"]

  static let first = """
    CREATE TABLE dead_objects (object text COLLATE "C" PRIMARY KEY, object_bytes bigint NOT NULL);
    CREATE UNIQUE INDEX payloads_by_object ON payloads (object) INCLUDE (object_bytes) WHERE object IS NOT NULL;
    CREATE UNIQUE INDEX inputs_by_object ON inputs (object) INCLUDE (object_bytes) WHERE object IS NOT NULL;
    CREATE FUNCTION object_dies() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO dead_objects VALUES (OLD.object, OLD.object_bytes) ON CONFLICT DO NOTHING;
      RETURN NULL;
    END $$;
    CREATE TRIGGER payload_object_dies AFTER DELETE ON payloads
      FOR EACH ROW WHEN (OLD.object IS NOT NULL) EXECUTE FUNCTION object_dies();
    CREATE TRIGGER input_object_dies AFTER DELETE ON inputs
      FOR EACH ROW WHEN (OLD.object IS NOT NULL) EXECUTE FUNCTION object_dies();
    CREATE FUNCTION settle_object(p_object text, p_bytes bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT 1 FROM payloads WHERE object = p_object)
        OR EXISTS (SELECT 1 FROM inputs WHERE object = p_object)
      THEN
        DELETE FROM dead_objects WHERE object = p_object;
      ELSE
        INSERT INTO dead_objects VALUES (p_object, p_bytes) ON CONFLICT DO NOTHING;
      END IF;
    END $$;
    """
}

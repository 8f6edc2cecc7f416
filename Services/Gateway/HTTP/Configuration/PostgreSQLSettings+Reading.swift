import PostgreSQLJournal
import Settings

extension PostgreSQLSettings {
  /// Reads the settings of a shared journal.
  mutating func read(_ reader: inout SettingReader) async {
    url = await reader.text(
      "journal.url", url,
      "PostgreSQL database with the journal, for several gateways, instead of journal.path: "
        + "postgresql://user@host/database or keyword=value, as libpq takes it")
    passwordFile = await reader.text(
      "journal.passwordFile", passwordFile, "file whose first line is the database's password")
    schema = await reader.text("journal.schema", schema, "schema of the database with the journal's tables")
    leaseSeconds = await reader.number(
      "journal.leaseSeconds", leaseSeconds, in: 1...3600,
      "a gateway that has not renewed its lease for so long may lose its jobs to others")
    for complaint in complaints { reader.complain(complaint) }
  }
}

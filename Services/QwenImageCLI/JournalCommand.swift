import ArgumentParser
import Foundation
import Journal
import Objects
import PostgreSQLJournal

/// `qwen-image journal`: a gateway's journal, moved and looked after while no gateway writes to it.
struct JournalCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "journal",
    abstract: "Back up, move, check or migrate a gateway's journal.",
    discussion: """
      A dump has everything in it that a journal has, with checksums, and goes into either engine:

        qwen-image journal export --journal gateway.journal dump
        qwen-image journal import --journal-url postgresql://qwen@db/qwen dump

      Whatever changes a journal needs it for itself: stop its gateways first. A PostgreSQL journal is exported and
      checked while gateways run, as it is at one instant.
      """,
    subcommands: [Export.self, Import.self, Check.self, Migrate.self])

  /// Which journal.
  struct Options: ParsableArguments {
    @Option(help: "The file of a SQLite journal (a gateway's journal.path).")
    var journal: String?

    @Option(help: "The database of a PostgreSQL journal (a gateway's journal.url).")
    var journalURL: String?

    @Option(help: "File whose first line is the database's password.")
    var passwordFile = ""

    @Option(help: "The database's schema with the journal.")
    var schema = "qwen_image"

    func validate() throws {
      guard (journal == nil) != (journalURL == nil) else {
        throw ValidationError("give either --journal or --journal-url")
      }
      if let complaint = settings?.complaints.first { throw ValidationError(complaint) }
    }

    private var settings: PostgreSQLSettings? {
      guard let journalURL else { return nil }
      var settings = PostgreSQLSettings(url: journalURL)
      // The work of these commands may take long, and no client waits.
      (settings.passwordFile, settings.schema, settings.statementSeconds) = (passwordFile, schema, 3600)
      return settings
    }

    /// - Parameter makes: whether a file that is not there is made.
    func open(makes: Bool = false) throws -> any JournalArchive {
      if let settings { return try PostgreSQLArchive(settings) }
      let path = journal ?? ""
      guard makes || FileManager.default.fileExists(atPath: path) else {
        throw ValidationError("there is no journal \(path)")
      }
      var limits = JournalLimits()
      limits.reserveBytes = 0
      return try SQLiteJournalStore(path: path, limits: limits)
    }
  }

  struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Write a dump of all that is in a journal.")

    @OptionGroup var options: Options
    @OptionGroup var objects: JournalObjects

    @Argument(help: "The dump's file, which must not be there yet; - for standard output.")
    var file: String

    func run() throws {
      let journal = try options.open()
      defer { (journal as? SQLiteJournalStore)?.close() }
      let reading = try objects.store(of: journal, options).map { store in
        { (object: StoredObject) in try JournalObjects.read(object, from: store) }
      }
      let isOutput = file == "-"
      let descriptor = isOutput ? STDOUT_FILENO : Foundation.open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
      guard descriptor >= 0 else { throw ValidationError("\(file): \(String(cString: strerror(errno)))") }
      let output = FileHandle(fileDescriptor: descriptor, closeOnDealloc: !isOutput)
      do {
        let count = try JournalDump.write(journal, objects: reading) { try output.write(contentsOf: $0) }
        if !isOutput, fsync(descriptor) != 0 { throw ValidationError("\(file): \(String(cString: strerror(errno)))") }
        Terminal.note("\(count) jobs of \(journal.location)")
      } catch {
        // Half a dump is of no use, and would be taken for one.
        if !isOutput { unlink(file) }
        throw error
      }
    }
  }

  struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Put a dump into a journal: all of it, or nothing when it is damaged or a job is there already.")

    @OptionGroup var options: Options

    @Argument(help: "The dump's file; - for standard input.")
    var file: String

    func run() throws {
      let input: FileHandle
      if file == "-" {
        input = .standardInput
      } else {
        guard let handle = FileHandle(forReadingAtPath: file) else { throw ValidationError("\(file) cannot be read") }
        input = handle
      }
      let journal = try options.open(makes: true)
      defer { (journal as? SQLiteJournalStore)?.close() }
      let count = try JournalDump.read(journal) { try input.read(upToCount: $0) ?? Data() }
      Terminal.note("\(count) jobs into \(journal.location)")
    }
  }

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Read all of a journal and print what is wrong with it; exit status 1 when something is.")

    @OptionGroup var options: Options
    @OptionGroup var objects: JournalObjects

    func run() throws {
      let journal = try options.open()
      defer { (journal as? SQLiteJournalStore)?.close() }
      let problems = try journal.problems() + objects.problems(of: journal, options)
      for problem in problems { try Terminal.print(problem) }
      if !problems.isEmpty { throw ExitCode(1) }
      Terminal.note("\(journal.location) is sound")
    }
  }

  struct Migrate: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print the version of a journal's schema, or take it to another one.",
      discussion: """
        Gateways take a schema forward when they start. For a way back, to an older release, stop all gateways; what the
        older version has no place for is named, and dropped only with --accept-loss.
        """)

    @OptionGroup var options: Options

    @Option(help: "The version.")
    var to: Int64?

    @Flag(help: "Drop what the older version has no place for.")
    var acceptLoss = false

    func run() throws {
      let journal = try options.open()
      defer { (journal as? SQLiteJournalStore)?.close() }
      if let to { try journal.migrate(to: to, acceptsLoss: acceptLoss) }
      let version = try journal.schemaVersion()
      try Terminal.print(
        "version \(version.found.map(String.init) ?? "none"), the newest that this program knows is \(version.newest)")
    }
  }
}

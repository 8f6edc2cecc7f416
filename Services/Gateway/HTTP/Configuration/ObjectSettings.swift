import Foundation
import Journal
import Logging
import Objects
import Settings

/// Where the large bytes of the journal are kept: images, what they begin with, and checkpoints.
public struct ObjectSettings: SettingGroup {
  /// What keeps them.
  public enum Store: String, CaseIterable, Sendable {
    /// The journal's own rows.
    case journal
    /// Files of this machine, or of one that several gateways have mounted.
    case files
    /// A bucket.
    case s3
  }

  /// What keeps them; nil: `files` for a journal that is a file, else `journal`.
  public var store: Store?
  /// The directory of `files`; empty: the journal's path with ".objects".
  public var directory = ""
  /// Which bytes are meant.
  public var rules = ObjectRules()
  /// The bucket of `s3`.
  public var s3 = S3Settings()
  /// The file with the credentials of `s3`; empty: the environment's.
  public var credentialsFile = ""

  /// The defaults.
  public init() {}

  /// Reads every setting.
  public mutating func read(_ reader: inout SettingReader) async {
    let name = await reader.text(
      "objects.store", "",
      "what keeps the images, input images and checkpoints of at least objects.threshold bytes: journal, its own rows; "
        + "files, in objects.directory; s3, in a bucket. Without it: files for a journal that is a file, else journal")
    store = Store(rawValue: name)
    if store == nil, !name.isEmpty {
      reader.complain("objects.store is \"\(name)\", but must be journal, files or s3")
    }
    directory = await reader.text(
      "objects.directory", directory,
      "directory of objects.store files; of a journal that several gateways share, all of them must have it mounted. "
        + "Without it: journal.path with \".objects\"")
    rules.threshold = await reader.integer(
      "objects.threshold", rules.threshold, in: 1...(1 << 30), "bytes of fewer stay in the journal's rows")
    rules.includesProgress = await reader.flag(
      "objects.checkpoints", rules.includesProgress,
      "keep checkpoints and outputs of stages as objects as well, and not only images and input images")
    rules.maxTransfers = await reader.integer(
      "objects.maxTransfers", rules.maxTransfers, in: 1...256, "objects that are written or read at a time")
    await readS3(&reader)
  }

  private mutating func readS3(_ reader: inout SettingReader) async {
    s3.endpoint = await reader.text(
      "objects.s3.endpoint", s3.endpoint,
      "server of the bucket, https://HOST or https://HOST:PORT; without it, Amazon's of objects.s3.region")
    s3.region = await reader.text("objects.s3.region", s3.region, "region that requests are signed for")
    s3.bucket = await reader.text("objects.s3.bucket", s3.bucket, "bucket, which must be there")
    s3.prefix = await reader.text(
      "objects.s3.prefix", s3.prefix, "what keys begin with, such as images/production; the journal's own name follows")
    s3.isPathStyle = await reader.flag(
      "objects.s3.pathStyle", s3.isPathStyle,
      "name the bucket in the path, as most servers other than Amazon's want it, and not in the host")
    credentialsFile = await reader.text(
      "objects.s3.credentialsFile", credentialsFile,
      "file with aws_access_key_id, aws_secret_access_key and perhaps aws_session_token, read again when it changes; "
        + "without it, AWS_ACCESS_KEY_ID and the others of the environment, else ~/.aws/credentials")
    s3.allowsInsecure = await reader.flag(
      "objects.s3.allowInsecure", s3.allowsInsecure, "let objects.s3.endpoint on another machine be without TLS")
    s3.timeout = await reader.seconds(
      "objects.s3.timeoutSeconds", s3.timeout, in: 0.5...600,
      "one object's transfer with its repetitions, and a second more for each MiB; what cannot be written in time is "
        + "kept in the journal")
    if store == .s3 {
      do throws(ObjectError) {
        try s3.checked()
      } catch { reader.complain("objects.s3: \(error)") }
    } else if !s3.bucket.isEmpty || !s3.endpoint.isEmpty {
      reader.complain("objects.s3.bucket or objects.s3.endpoint is set, but objects.store is not s3")
    }
  }

  /// The journal with its large bytes where these settings say.
  ///
  /// - Parameters:
  ///   - base: everything else.
  ///   - path: the journal's file; nil: it is none.
  ///   - logger: receives what an operator should know of.
  func opened(_ base: any ObjectNamingJournalStore, path: String?, logger: Logger) throws(JournalError)
    -> any JournalStore
  {
    // What ends with the process is in memory.
    guard base.isDurable else { return base }
    var rules = rules
    let objects: any ObjectStore
    do throws(ObjectError) {
      switch store ?? (path == nil ? .journal : .files) {
      case .journal:
        guard let earlier = try earlierFiles(base, path) else { return base }
        // What was kept as files is read and deleted, and nothing added.
        (objects, rules.threshold) = (earlier, Int.max)
      case .files: objects = try FileObjectStore(directory: try filesDirectory(base, path))
      case .s3:
        var settings = s3
        settings.prefix = [s3.prefix.trimmingCharacters(in: ["/"]), base.objectSpace].filter { !$0.isEmpty }
          .joined(separator: "/")
        let file = credentialsFile.isEmpty ? nil : credentialsFile
        objects = try S3ObjectStore(
          settings, credentials: S3CredentialSource(file: file), maxRequests: rules.maxTransfers)
      }
    } catch {
      throw .foreign(path: base.location, reason: "its objects: \(error)")
    }
    logger.info(
      "large bytes of the journal are kept apart",
      metadata: ["objects": "\(objects.location)", "threshold": "\(rules.threshold)"])
    return try ObjectJournal.open(base, objects: objects, rules: rules) { Self.log($0, objects.location, logger) }
  }

  private func filesDirectory(_ base: any ObjectNamingJournalStore, _ path: String?) throws(ObjectError) -> String {
    let parent = directory.isEmpty ? path.map { "\($0).objects" } : directory
    guard let parent else { throw .settings("objects.store is files, which needs objects.directory") }
    return "\(parent)/\(base.objectSpace)"
  }

  /// The files of a journal that now keeps everything itself; nil: it has none.
  private func earlierFiles(_ base: any ObjectNamingJournalStore, _ path: String?) throws(ObjectError)
    -> FileObjectStore?
  {
    let count = try? base.objects(after: nil, limit: 1).count + base.deadObjects(limit: 1).count
    guard count != 0 else { return nil }
    guard let directory = try? filesDirectory(base, path), access(directory, F_OK) == 0 else {
      throw .settings("it has some, but objects.store is journal; set it as it was when they were written")
    }
    return try FileObjectStore(directory: directory)
  }

  private static func log(_ event: ObjectEvent, _ location: String, _ logger: Logger) {
    var metadata: Logger.Metadata = ["objects": "\(location)"]
    switch event {
    case .unavailable(let error):
      metadata["reason"] = "\(error)"
      logger.error("objects cannot be written; their bytes stay in the journal until they can", metadata: metadata)
    case .available: logger.notice("objects can be written again", metadata: metadata)
    case .orphansDeleted(let count):
      metadata["count"] = "\(count)"
      logger.notice("deleted objects that nothing names", metadata: metadata)
    case .sweepFailed(let reason):
      metadata["reason"] = "\(reason)"
      logger.warning("objects could not be deleted or listed; it is tried again", metadata: metadata)
    }
  }
}

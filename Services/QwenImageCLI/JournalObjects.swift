import ArgumentParser
import Foundation
import Journal
import Objects

/// Where the large bytes of a journal are, for commands that read all of it: as the gateway's `objects` settings.
struct JournalObjects: ParsableArguments {
  @Option(help: "Directory of objects that are files (objects.directory); without it, the journal's with \".objects\".")
  var objectsDirectory: String?

  @Option(help: "Bucket of objects (objects.s3.bucket).")
  var s3Bucket: String?

  @Option(help: "The bucket's server (objects.s3.endpoint); without it, Amazon's.")
  var s3Endpoint = ""

  @Option(help: "The bucket's region (objects.s3.region).")
  var s3Region = S3Settings().region

  @Option(help: "What the keys begin with (objects.s3.prefix).")
  var s3Prefix = ""

  @Flag(help: "Name the bucket in the path (objects.s3.pathStyle).")
  var s3PathStyle = false

  @Option(help: "File with the credentials (objects.s3.credentialsFile); without it, the environment's.")
  var s3CredentialsFile: String?

  @Flag(help: "Let the server on another machine be without TLS (objects.s3.allowInsecure).")
  var s3AllowInsecure = false

  func validate() throws {
    guard s3Bucket == nil || objectsDirectory == nil else {
      throw ValidationError("give either --objects-directory or --s3-bucket")
    }
  }

  /// What has the objects of `journal`; nil: they are in its rows.
  func store(of journal: any JournalArchive, _ options: JournalCommand.Options) throws -> (any ObjectStore)? {
    guard let space = try journal.namedObjectSpace() else { return nil }
    if let s3Bucket {
      var settings = S3Settings()
      (settings.bucket, settings.endpoint, settings.region) = (s3Bucket, s3Endpoint, s3Region)
      (settings.isPathStyle, settings.allowsInsecure) = (s3PathStyle, s3AllowInsecure)
      settings.prefix = [s3Prefix.trimmingCharacters(in: ["/"]), space].filter { !$0.isEmpty }.joined(separator: "/")
      return try S3ObjectStore(settings, credentials: S3CredentialSource(file: s3CredentialsFile), maxRequests: 1)
    }
    guard let parent = objectsDirectory ?? options.journal.map({ "\($0).objects" }) else { return nil }
    let directory = "\(parent)/\(space)"
    guard FileManager.default.fileExists(atPath: directory) else {
      if objectsDirectory != nil { throw ValidationError("there are no objects of this journal in \(parent)") }
      return nil
    }
    return try FileObjectStore(directory: directory)
  }

  /// The bytes of an object, checked against its name.
  static func read(_ object: StoredObject, from store: any ObjectStore) throws -> Data {
    guard let key = ObjectKey(object.name) else { throw ObjectError.corrupt("\(object.name) is no name of an object") }
    return try store.get(key, byteCount: object.byteCount)
  }

  /// What is wrong with the objects that rows name.
  func problems(of journal: any JournalArchive, _ options: JournalCommand.Options) throws -> [String] {
    let store = try store(of: journal, options)
    var problems: [String] = [], last: String?
    while true {
      let page = try journal.objects(after: last, limit: 500)
      for object in page {
        guard let store else {
          return problems + ["rows name objects, such as \(object.name), but where they are was not said"]
        }
        do { _ = try Self.read(object, from: store) } catch { problems.append("\(error)") }
      }
      guard let end = page.last else { return problems }
      last = end.name
    }
  }
}

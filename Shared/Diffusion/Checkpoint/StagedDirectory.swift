import Foundation

#if canImport(Glibc)
  import Glibc
#endif

/// A directory that is filled under another name and gets its own in one step. Unless it is committed, nothing is left
/// of it.
struct StagedDirectory: ~Copyable {
  /// Where to write.
  let url: URL
  private let destination: URL

  private init(url: URL, destination: URL) {
    self.url = url
    self.destination = destination
  }

  /// Makes an empty directory beside `destination`, which must not exist or be empty.
  static func beside(_ destination: URL) throws(PipelineError) -> StagedDirectory {
    let present = (try? FileManager.default.contentsOfDirectory(atPath: destination.path)) ?? []
    guard present.isEmpty else { throw .checkpoint("\(destination.path) exists and is not empty") }
    let unique = String(UInt32.random(in: 0...UInt32.max), radix: 36)
    let url = destination.standardizedFileURL.deletingLastPathComponent().appending(
      path: ".\(destination.lastPathComponent).\(unique).partial")
    do { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) } catch {
      throw .checkpoint("cannot create \(url.path): \(error.localizedDescription)")
    }
    return StagedDirectory(url: url, destination: destination)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  /// Gives the directory its name.
  func commit() throws(PipelineError) {
    guard rename(url.path, destination.path) == 0 else {
      throw .checkpoint("cannot rename \(url.path) to \(destination.path): \(String(cString: strerror(errno)))")
    }
  }
}

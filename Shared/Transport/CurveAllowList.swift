import ClusterCore
import Foundation
import Synchronization

/// The public keys of the clients that may connect: the files of a directory, read again when they may have changed.
///
/// A key is added by putting its file there and revoked by removing it; no restart is needed. A file that is changed in
/// place is noticed within a minute.
public final class CurveAllowList: Sendable {
  /// More keys than this are not read.
  public static let maxKeys = 10_000

  /// The directory; files whose name ends in `.public` count.
  public let directory: String
  private let refreshSeconds: Double
  private let time: any TimeSource
  private let state: Mutex<State>

  private struct State {
    var keys: [CurvePublicKey: String] = [:]
    var problems: [TransportError] = []
    var lookedAt: Duration
    var readAt: Duration
    /// When the directory was last changed, as of the last reading; nil: it may have changed since without showing it.
    var modified: timespec?
  }

  /// Reads `directory` now, and looks whether it has changed whenever a key is asked for and the last look is
  /// `refreshSeconds` old.
  ///
  /// - Throws: `TransportError.key` when the directory cannot be read.
  public init(
    directory: String, refreshSeconds: Double = 1, time: any TimeSource = SystemTime()
  ) throws(TransportError) {
    self.directory = directory
    self.refreshSeconds = refreshSeconds
    self.time = time
    let modified = Self.settledModification(directory, time)
    let (keys, problems) = try Self.read(directory)
    let now = time.elapsed
    self.state = Mutex(State(keys: keys, problems: problems, lookedAt: now, readAt: now, modified: modified))
  }

  /// The file name, without `.public`, of the client with `key`; nil: it is not allowed.
  public func name(of key: CurvePublicKey) -> String? {
    state.withLock { state in
      refresh(&state, afterSeconds: refreshSeconds)
      if let name = state.keys[key] { return name }
      // It may have been put there a moment ago.
      refresh(&state, afterSeconds: min(refreshSeconds, 0.1))
      return state.keys[key]
    }
  }

  /// Files of the last reading that hold no key.
  public var problems: [TransportError] { state.withLock { $0.problems } }

  private func refresh(_ state: inout State, afterSeconds: Double) {
    let now = time.elapsed
    guard now - state.lookedAt >= .seconds(afterSeconds) else { return }
    state.lookedAt = now
    let modified = Self.settledModification(directory, time)
    if let modified, let known = state.modified, modified.tv_sec == known.tv_sec, modified.tv_nsec == known.tv_nsec,
      now - state.readAt < .seconds(60)
    {
      return
    }
    state.readAt = now
    state.modified = modified
    do throws(TransportError) {
      (state.keys, state.problems) = try Self.read(directory)
    } catch {
      // A directory that is gone allows no one.
      state.keys = [:]
      state.problems = [error]
    }
  }

  /// When the directory was last changed, unless that is so recent that another change may leave the same time.
  private static func settledModification(_ directory: String, _ time: any TimeSource) -> timespec? {
    var status = stat()
    guard stat(directory, &status) == 0 else { return nil }
    return Int(time.unixMs / 1000) - status.st_mtim.tv_sec > 2 ? status.st_mtim : nil
  }

  private static func read(_ directory: String) throws(TransportError) -> ([CurvePublicKey: String], [TransportError]) {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".public") }.sorted()
    } catch {
      throw .key(path: directory, reason: "the directory cannot be read")
    }
    guard names.count <= maxKeys else {
      throw .key(path: directory, reason: "holds \(names.count) keys, at most \(maxKeys) are read")
    }
    var keys: [CurvePublicKey: String] = [:]
    var problems: [TransportError] = []
    for name in names {
      do throws(TransportError) {
        keys[try CurvePublicKey(contentsOf: "\(directory)/\(name)")] = String(name.dropLast(".public".count))
      } catch {
        problems.append(error)
      }
    }
    return (keys, problems)
  }
}

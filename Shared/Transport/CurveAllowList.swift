import Foundation
import Synchronization

/// The public keys of the clients that may connect: the files of a directory, read again when they may have changed.
///
/// A key is added by putting its file there and revoked by removing it; no restart is needed.
public final class CurveAllowList: Sendable {
  /// More keys than this are not read.
  public static let maxKeys = 10_000

  /// The directory; files whose name ends in `.public` count.
  public let directory: String
  private let refreshSeconds: Double
  private let state: Mutex<State>

  private struct State {
    var keys: [CurvePublicKey: String] = [:]
    var readAt: ContinuousClock.Instant
    var problems: [TransportError] = []
  }

  /// Reads `directory` now, and again whenever a key is asked for and the last reading is `refreshSeconds` old.
  ///
  /// - Throws: `TransportError.key` when the directory cannot be read.
  public init(directory: String, refreshSeconds: Double = 1) throws(TransportError) {
    self.directory = directory
    self.refreshSeconds = refreshSeconds
    let (keys, problems) = try Self.read(directory)
    self.state = Mutex(State(keys: keys, readAt: .now, problems: problems))
  }

  /// The file name, without `.public`, of the client with `key`; nil: it is not allowed.
  public func name(of key: CurvePublicKey) -> String? {
    state.withLock { state in
      refresh(&state)
      return state.keys[key]
    }
  }

  /// Files of the last reading that hold no key.
  public var problems: [TransportError] { state.withLock { $0.problems } }

  private func refresh(_ state: inout State) {
    let now = ContinuousClock.now
    guard now - state.readAt >= .seconds(refreshSeconds) else { return }
    state.readAt = now
    do throws(TransportError) {
      (state.keys, state.problems) = try Self.read(directory)
    } catch {
      // A directory that is gone allows nobody.
      state.keys = [:]
      state.problems = [error]
    }
  }

  private static func read(_ directory: String) throws(TransportError) -> ([CurvePublicKey: String], [TransportError]) {
    let names: [String]
    do {
      names = try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".public") }.sorted()
    } catch {
      throw .key(path: directory, reason: "the directory cannot be read")
    }
    guard names.count <= maxKeys else { throw .key(path: directory, reason: "holds \(names.count) keys, at most \(maxKeys) are read") }
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

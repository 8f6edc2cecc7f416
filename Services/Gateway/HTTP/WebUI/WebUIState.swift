import GatewayAPI
import GatewayDispatch
import Scheduling
import StrictJSON
import Synchronization

/// What A1111's API remembers between requests: the choices of each tenant, and which of its jobs came by this way.
/// Nothing of it outlives the process; jobs do, under `/v1/jobs`.
final class WebUIState: Sendable {
  /// Tenants whose choices are kept; those that were not used for the longest time are dropped.
  static let maxTenants = 1024
  /// Bytes of one tenant's choices, as JSON.
  static let maxOptionBytes = 32 << 10

  private struct Choices {
    var options: JSONObject
    var usedAt: UInt64
  }
  private struct Job {
    let id: String
    let route: WebUIRequest.Route
  }
  private struct State {
    var choices: [TenantID: Choices] = [:]
    var jobs: [TenantID: [Job]] = [:]
    var clock: UInt64 = 0
  }
  private let state = Mutex(State())

  // MARK: Options

  /// What a tenant has set.
  func options(of tenant: TenantID) -> JSONObject {
    state.withLock { state in
      state.clock += 1
      state.choices[tenant]?.usedAt = state.clock
      return state.choices[tenant]?.options ?? [:]
    }
  }

  /// Adds to what a tenant has set.
  ///
  /// - Throws: when that is more than is kept.
  func set(_ options: JSONObject, of tenant: TenantID) throws(APIError) {
    let bytes: Int? = state.withLock { state in
      state.clock += 1
      let merged = (state.choices[tenant]?.options ?? [:]).merging(options) { $1 }
      let count = JSON.object(merged).bytes.count
      guard count <= Self.maxOptionBytes else { return count }
      state.choices[tenant] = Choices(options: merged, usedAt: state.clock)
      if state.choices.count > Self.maxTenants,
        let oldest = state.choices.min(by: { $0.value.usedAt < $1.value.usedAt })
      {
        state.choices[oldest.key] = nil
      }
      return nil
    }
    if let bytes {
      throw APIError(
        .bodyTooLarge, "the options would have \(bytes) bytes, the limit of a tenant is \(Self.maxOptionBytes)")
    }
  }

  // MARK: Jobs

  /// A job of the tenant has begun that a client waits for.
  func begin(_ id: String, _ route: WebUIRequest.Route, of tenant: TenantID) {
    state.withLock { $0.jobs[tenant, default: []].append(Job(id: id, route: route)) }
  }

  /// No client waits for the job any more.
  func end(_ id: String, of tenant: TenantID) {
    state.withLock { state in
      guard let index = state.jobs[tenant]?.firstIndex(where: { $0.id == id }) else { return }
      state.jobs[tenant]?.remove(at: index)
      if state.jobs[tenant]?.isEmpty == true { state.jobs[tenant] = nil }
    }
  }

  /// The tenant's jobs that clients wait for, the oldest first.
  func jobs(of tenant: TenantID) -> [(id: String, route: WebUIRequest.Route)] {
    state.withLock { $0.jobs[tenant]?.map { ($0.id, $0.route) } ?? [] }
  }
}

/// Finds the path that a client likely meant which came to none: `/images/generations`, `/v1/v1/images/generations` and
/// `/api/v1/images/generations` are all the API's `/v1/images/generations` below a wrong base address.
struct RouteHints: Sendable {
  /// Longer paths are not looked at.
  private static let maxSegments = 12

  /// The segments of every route of the API, as the router has them.
  private let routes: [[Substring]]

  /// - Parameter paths: of all routes, as the router has them: `/v1/jobs/{id}`.
  init(_ paths: [String]) {
    routes = Set(paths).sorted().map { $0.split(separator: "/") }.filter { $0.first == "v1" }
  }

  /// - Parameter path: of a request, without a query.
  /// - Returns: the path that was meant; nil: nothing like it is served.
  func meant(by path: String) -> String? {
    let segments = path.split(separator: "/", maxSplits: Self.maxSegments)
    guard segments.count <= Self.maxSegments else { return nil }
    for start in segments.indices {
      let candidate = segments[start] == "v1" ? Array(segments[start...]) : ["v1"] + segments[start...]
      if candidate != segments, routes.contains(where: { Self.leads(candidate, to: $0) }) {
        return "/" + candidate.joined(separator: "/")
      }
    }
    return nil
  }

  private static func leads(_ path: [Substring], to route: [Substring]) -> Bool {
    if route.last == "**" { return path.count >= route.count && path.starts(with: route.dropLast()) }
    return path.count == route.count && zip(path, route).allSatisfy { $0 == $1 || $1.first == "{" }
  }
}

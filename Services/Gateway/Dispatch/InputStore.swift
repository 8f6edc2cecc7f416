import GatewayPipelines
import Scheduling
import Wire

/// The images that open jobs begin with, by their content: kept once, however many jobs have them.
struct InputStore {
  private var images: [String: (tensor: WireTensor, jobs: Int)] = [:]
  private var tenants: [TenantID: Int] = [:]
  /// Bytes of all images, once each.
  private(set) var byteCount = 0

  /// Bytes of the images of a tenant's open jobs; one that several jobs have counts for each.
  func byteCount(of tenant: TenantID) -> Int { tenants[tenant] ?? 0 }

  /// The same of all tenants that have any.
  var byteCounts: [TenantID: Int] { tenants }

  subscript(_ digest: String) -> WireTensor? { images[digest]?.tensor }

  /// Bytes of those of `inputs` that no job has yet.
  func newByteCount(of inputs: [InputImage]) -> Int {
    inputs.reduce(0) { $0 + (images[$1.reference.digest] == nil ? $1.tensor.bytes.count : 0) }
  }

  /// Takes the images of a job. Returns them with the bytes that are kept, so that others of the same content go.
  mutating func retain(_ inputs: [InputImage], for tenant: TenantID) -> [InputImage] {
    inputs.map { input in
      let digest = input.reference.digest
      if images[digest] == nil {
        images[digest] = (input.tensor, 0)
        byteCount += input.tensor.bytes.count
      }
      images[digest]?.jobs += 1
      tenants[tenant, default: 0] += input.tensor.bytes.count
      var kept = input
      if let bytes = images[digest]?.tensor.bytes { kept.tensor.bytes = bytes }
      return kept
    }
  }

  mutating func release(_ inputs: [InputImage], of tenant: TenantID) {
    for input in inputs {
      let digest = input.reference.digest, bytes = input.tensor.bytes.count
      tenants[tenant, default: bytes] -= bytes
      if tenants[tenant] ?? 0 <= 0 { tenants[tenant] = nil }
      guard let jobs = images[digest]?.jobs else { continue }
      images[digest]?.jobs = jobs - 1
      if jobs <= 1 {
        images[digest] = nil
        byteCount -= bytes
      }
    }
  }
}

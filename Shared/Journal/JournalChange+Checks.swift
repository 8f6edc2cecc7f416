import CZlib
import Foundation

/// CRC-32 of bytes, which every journal keeps beside them.
package enum Checksum {
  /// Of all of `data`.
  package static func of(_ data: Data) -> UInt32 {
    data.withUnsafeBytes {
      UInt32(truncatingIfNeeded: crc32_z(0, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count))
    }
  }
}

extension JournalChange {
  /// Whether it begins a job.
  package var admitsJob: Bool { if case .admit = self { true } else { false } }

  /// Whether an image ends with it.
  package var endsImage: Bool {
    switch self {
    case .finish, .fail: true
    case .admit, .attempt, .progress, .announce, .attempted: false
    }
  }

  /// Whether every value is one that a journal takes.
  ///
  /// - Throws: `tooLarge`.
  package func check() throws(JournalError) {
    switch self {
    case .admit(let job):
      try Self.check("the request", job.request.count, ValueLimits.maxRequestBytes)
      try Self.check("the job's name", job.id.utf8.count, ValueLimits.maxNameBytes)
      try Self.check("the tenant's name", job.tenant.utf8.count, ValueLimits.maxNameBytes)
      try Self.check("the model's name", job.model.utf8.count, ValueLimits.maxMessageBytes)
      try Self.check("the number of tags", job.tags.count, ValueLimits.maxTags)
      for tag in job.tags { try Self.check("a tag", tag.utf8.count, ValueLimits.maxNameBytes) }
      try Self.check("the number of webhooks", job.webhooks.count, ValueLimits.maxWebhooks)
      for webhook in job.webhooks {
        try Self.check("the address of a webhook", webhook.url.utf8.count, ValueLimits.maxURLBytes)
        try Self.check("the host of a webhook", webhook.host.utf8.count, ValueLimits.maxNameBytes)
        try Self.check("the secret of a webhook", webhook.secret?.utf8.count ?? 0, ValueLimits.maxNameBytes)
      }
      try Self.check("the number of images", job.imageCount, ValueLimits.maxImages)
      try Self.check("the number of images to begin with", job.inputs.count, ValueLimits.maxInputs)
      for input in job.inputs {
        try Self.check("an image to begin with", input.byteCount, ValueLimits.maxPayloadBytes)
        try Self.check("the name of an object", input.object?.name.utf8.count ?? 0, StoredObject.maxNameBytes)
        try Self.check("an image's digest", input.digest.utf8.count, ValueLimits.maxNameBytes)
      }
      if let key = job.key { try Self.check("the idempotency key", key.text.utf8.count, ValueLimits.maxNameBytes) }
    case .progress(_, let progress):
      try Self.check(progress.payload)
      try Self.check("the numerics class", progress.numericsClass.utf8.count, ValueLimits.maxNameBytes)
    case .finish(_, let result, _, _): try Self.check(result)
    case .fail, .attempt, .announce, .attempted: break
    }
  }

  private static func check(_ payload: StoredPayload) throws(JournalError) {
    try Self.check("the payload \(payload.name.prefix(40))", payload.byteCount, ValueLimits.maxPayloadBytes)
    try Self.check("the name of an object", payload.object?.name.utf8.count ?? 0, StoredObject.maxNameBytes)
    try Self.check("the payload's name", payload.name.utf8.count, ValueLimits.maxNameBytes)
    try Self.check("the payload's shape", payload.shape.count, ValueLimits.maxRank)
  }

  private static func check(_ what: String, _ value: Int, _ limit: Int) throws(JournalError) {
    if value > limit { throw .tooLarge(what: what, value: value, limit: limit) }
  }
}

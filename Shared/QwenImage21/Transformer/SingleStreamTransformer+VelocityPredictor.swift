import Diffusion
import Hashing
import TensorCore

extension SingleStreamTransformer: VelocityPredictor {
  /// Most tokens of a pass that branches share: few tokens wait for weights; more keep the processor busy by
  /// themselves.
  public static let sharedTokensMax = 512

  /// What every step has in common: the prompt, the references, their keys and values in every block, and the
  /// modulation vectors of the schedule.
  public struct Prepared: Sendable {
    let conditioning: Conditioning

    /// Keys and values of text and references; nil: every step computes them again.
    public var cache: PrefixCache? { conditioning.cache }
  }

  /// Projects prompts and references, computes the modulation vectors of the whole schedule, and what text and
  /// references leave in every block.
  public func prepare(_ image: DenoisingInput, times: [Float]) throws(PipelineError) -> [Prepared] {
    try validate(image)
    let modulation = modulation(times: times)
    let latents = image.references.isEmpty ? nil : Tensor.stacking(image.references.map(\.latents))
    let references = latents.map { (latents: $0, tokens: imageTokens($0)) }
    let branches = image.prompts.map {
      condition($0, sequence: sequence(of: $0, image), references: references, modulation: modulation)
    }
    guard usesPrefixCache else { return branches.map { Prepared(conditioning: $0) } }
    return cached(branches, keys: image.prompts.map { digest(of: $0, image.references) })
      .map { Prepared(conditioning: $0) }
  }

  /// The branches with keys and values, which are computed unless they are kept of an image before.
  private func cached(_ branches: [Conditioning], keys: [[UInt8]]) -> [Conditioning] {
    var branches = branches
    for (index, key) in keys.enumerated() { branches[index].cache = keptCaches[key] }
    let missing = branches.indices.filter { branches[$0].cache == nil }
    let caches = Self.passes(missing.map { branches[$0] }, tokens: \.sequence.prefixCount).flatMap { prefixCaches($0) }
    for (index, cache) in zip(missing, caches) {
      branches[index].cache = cache
      keptCaches.insert(cache, for: keys[index], byteCount: cache.byteCount)
    }
    return branches
  }

  /// SHA-256 of all that keys and values of text and references depend on besides the weights: not on seed, size and
  /// schedule.
  private func digest(of prompt: PromptConditioning, _ references: [ReferenceLatents]) -> [UInt8] {
    var hash = SHA256()
    hash.update(adapterFingerprint.utf8)
    let numbers = prompt.embeds.shape.dimensions + [prompt.imagePlaces.count] + prompt.imagePlaces
    for number in numbers + references.flatMap({ [$0.grid.height, $0.grid.width] }) {
      hash.update((0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) })
    }
    for tensor in [prompt.embeds] + references.map(\.latents) {
      tensor.withBytes { hash.update($0) }
    }
    return hash.finalize()
  }

  /// Bytes of keys and values that are kept for later images.
  public var keptBytes: Int { keptCaches.byteCount }

  /// Bytes that keys and values of text and references take for an image, all branches of guidance together, while its
  /// steps run: 0 without a cache.
  public func prefixCacheBytes(_ image: DenoisingInput) -> Int {
    guard usesPrefixCache else { return 0 }
    let references = image.references.reduce(0) { $0 + $1.grid.tokenCount }
    let tokens = image.prompts.reduce(0) { $0 + $1.embeds.shape[0] + references }
    return configuration.prefixCacheBytes(tokens: tokens, compute.activationDType)
  }

  /// As many as keys and values may be kept of, and as a sequence may have.
  public var referenceTokensMax: Int? {
    guard usesPrefixCache, let max = prefixCacheBytesMax else { return Self.prefixTokensMax }
    let tokens = max / configuration.prefixCacheBytes(tokens: 1, compute.activationDType)
    // Cards have no zero, and a single token is no reference either.
    return min(Self.prefixTokensMax, Swift.max(1, tokens))
  }

  private func sequence(of prompt: PromptConditioning, _ image: DenoisingInput) -> JointSequence {
    JointSequence(
      textCount: prompt.embeds.shape[0], places: prompt.imagePlaces, references: image.references.map(\.grid),
      target: image.grid)
  }

  /// The blocks of the stream.
  public var blockCount: Int { configuration.layerCount }

  /// Tokens of a pass: those of the image, and without a cache those of text and references.
  public func tokenCount(_ call: VelocityCall<Prepared>) -> Int { Branch(call).tokenCount }

  /// Predicts one velocity [N, channels], fp32.
  public func velocity(_ call: VelocityCall<Prepared>, probe: Probe) -> Tensor {
    guard probe.isActive else { return self([Branch(call)])[0] }
    // The reference fills its cache in the first step, which has the whole sequence.
    return self(Branch(call), recordsTargetOnly: call.branch.cache != nil && call.step > 0, probe: probe)
  }

  /// Predicts several velocities: every weight is read once for all that share a pass.
  public func velocities(_ calls: [VelocityCall<Prepared>]) -> [Tensor] {
    Self.passes(calls.map { Branch($0) }, tokens: \.tokenCount).flatMap { self($0) }
  }
}

extension SingleStreamTransformer.Branch {
  fileprivate init(_ call: VelocityCall<SingleStreamTransformer.Prepared>) {
    self.init(latents: call.latents, conditioning: call.branch.conditioning, step: call.step, cache: call.cache)
  }
}

// MARK: - Validation

extension SingleStreamTransformer {
  /// Most references of an image.
  static let referencesMax = 16
  /// Most tokens before the image that is made.
  static let prefixTokensMax = 1 << 20

  private func validate(_ image: DenoisingInput) throws(PipelineError) {
    guard image.layers == 1 else {
      throw .invalidRequest(field: "layers", reason: "is \(image.layers); this model makes one image")
    }
    guard image.controls.isEmpty else {
      throw .invalidRequest(
        field: "controls", reason: "are \(image.controls.count); this model has no control networks")
    }
    try validate(image.grid, field: "grid")
    try image.latents.require([image.grid.tokenCount, configuration.channels], field: "latents")
    guard image.references.count <= Self.referencesMax else {
      throw .invalidRequest(
        field: "references", reason: "are \(image.references.count); at most \(Self.referencesMax) are possible")
    }
    for (index, reference) in image.references.enumerated() {
      try validate(reference.grid, field: "references[\(index)]")
      try reference.latents.require(
        [reference.grid.tokenCount, configuration.channels], field: "references[\(index)]")
    }
    for (field, prompt) in zip(["prompt_embeds", "negative_prompt_embeds"], image.prompts) {
      try validate(prompt, referenceCount: image.references.count, field: field)
    }
    try validateSize(image)
  }

  /// One row of the text encoder stands for 2 × 2 tokens.
  private func validate(_ grid: TokenGrid, field: String) throws(PipelineError) {
    let limit = 4096
    for side in [grid.height, grid.width] where side < 2 || side > limit || side % 2 != 0 {
      throw .invalidRequest(
        field: field,
        reason: "has a grid of \(grid.height)×\(grid.width) tokens; both must be even and from 2 to \(limit)")
    }
  }

  private func validate(
    _ prompt: PromptConditioning, referenceCount: Int, field: String
  ) throws(PipelineError) {
    let embeds = prompt.embeds, width = configuration.contextDim, places = prompt.imagePlaces
    guard embeds.shape.rank == 2, embeds.shape[0] > 0, embeds.shape[1] == width, embeds.dtype == .fp32 else {
      throw .invalidRequest(
        field: field, reason: "is \(embeds.dtype.rawValue) \(embeds.shape); expected F32 [tokens, \(width)]")
    }
    guard places.count == referenceCount else {
      throw .invalidRequest(
        field: field, reason: "has places for \(places.count) images, but there are \(referenceCount) references")
    }
    guard zip([0] + places, places + [embeds.shape[0]]).allSatisfy({ $0 <= $1 }) else {
      throw .invalidRequest(
        field: field, reason: "has images behind \(places) of its \(embeds.shape[0]) rows; they must be in order")
    }
  }

  private func validateSize(_ image: DenoisingInput) throws(PipelineError) {
    let references = image.references.reduce(0) { $0 + $1.grid.tokenCount }
    let longest = image.prompts.map { $0.embeds.shape[0] + references }.max() ?? 0
    guard longest <= Self.prefixTokensMax else {
      throw .invalidRequest(
        field: "references", reason: "and prompt have \(longest) tokens; at most \(Self.prefixTokensMax) are possible")
    }
    guard let max = prefixCacheBytesMax, prefixCacheBytes(image) > max else { return }
    throw .invalidRequest(
      field: "references",
      reason: "and prompt need \(prefixCacheBytes(image) >> 20) MiB for keys and values of \(longest) tokens in "
        + "\(image.prompts.count) branches; the limit is \(max >> 20) MiB. Fewer or smaller references need less, and "
        + "none is needed where the cache is off")
  }
}

/// A card as the journal keeps it: one flat object. Keys are never renamed; a journal of 0.1 has no `pipelines`. Those
/// of the last line are there only for models that need them.
extension ModelCard: Codable {
  private enum CodingKeys: String, CodingKey {
    case modelID, pipelineClass, fingerprint, pipelines, sizeMultiple, minSide, maxSide, maxPixels, recommendedSizes,
      maxSteps
    case maxPromptTokens, maxPromptBytes, defaultSize, defaultSteps, defaultTrueCFGScale, defaultNegativePrompt
    case latentChannels, latentDownscale, latentPatch, referenceArea, conditionArea
    case scheduleSteps, maxReferences, maxReferenceTokens, denoiserBlocks, hasTransparency, license
    case samplers, schedules
  }

  /// Reads a card; its numbers are checked to be such that arithmetic with them cannot trap.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    func integer(_ key: CodingKeys, _ range: ClosedRange<Int>) throws -> Int {
      let value = try values.decode(Int.self, forKey: key)
      guard range.contains(value) else {
        throw DecodingError.dataCorruptedError(
          forKey: key, in: values,
          debugDescription: "\(value), but \(range.lowerBound) to \(range.upperBound) is required")
      }
      return value
    }
    let sides = 1...65_535, counts = 1...Int(Int32.max)
    /// Cards before 0.2 have none.
    func optional(_ key: CodingKeys) throws -> Int? { values.contains(key) ? try integer(key, counts) : nil }
    let names = try values.decodeIfPresent([String].self, forKey: .pipelines)
    self.init(
      model: ModelIdentity(
        id: try values.decode(String.self, forKey: .modelID),
        fingerprint: try values.decode(String.self, forKey: .fingerprint)),
      pipelineClass: try values.decode(String.self, forKey: .pipelineClass),
      pipelines: names?.compactMap { PipelineName($0) } ?? [.textToImage],
      limits: ModelLimits(
        sizeMultiplePx: try integer(.sizeMultiple, sides), minSidePx: try integer(.minSide, sides),
        maxSidePx: try integer(.maxSide, sides), maxPixels: try integer(.maxPixels, 1...Int.max),
        maxSteps: try integer(.maxSteps, counts),
        maxPromptTokens: try integer(.maxPromptTokens, counts), maxPromptBytes: try integer(.maxPromptBytes, counts),
        scheduleSteps: try optional(.scheduleSteps)),
      defaults: GenerationDefaults(
        size: try values.decode(ImageSize.self, forKey: .defaultSize),
        steps: try values.decode(Int.self, forKey: .defaultSteps),
        trueCFGScale: try values.decode(Double.self, forKey: .defaultTrueCFGScale),
        negativePrompt: try values.decode(String.self, forKey: .defaultNegativePrompt)),
      recommendedSizes: try values.decode([ImageSize].self, forKey: .recommendedSizes),
      latents: LatentGeometry(
        channels: try integer(.latentChannels, 1...4096), downscale: try integer(.latentDownscale, 1...4096),
        patch: try integer(.latentPatch, 1...4096)),
      references: ReferenceAreas(
        referencePx: try optional(.referenceArea) ?? ReferenceAreas.published.referencePx,
        conditionPx: try optional(.conditionArea) ?? ReferenceAreas.published.conditionPx,
        maxCount: try optional(.maxReferences) ?? ReferenceAreas.standardMaxCount))
    limits.maxReferenceTokens = try optional(.maxReferenceTokens)
    limits.denoiserBlocks = try optional(.denoiserBlocks)
    hasTransparency = try values.decodeIfPresent(Bool.self, forKey: .hasTransparency) ?? false
    license = try values.decodeIfPresent(String.self, forKey: .license) ?? ""
    /// Cards of earlier versions have none, those of later ones names that are not known here.
    func known<Name: RawRepresentable<String>>(_ key: CodingKeys) throws -> [Name] {
      try (values.decodeIfPresent([String].self, forKey: key) ?? []).compactMap { Name(rawValue: $0) }
    }
    samplers = try known(.samplers)
    if samplers.isEmpty { samplers = [.euler] }
    schedules = try known(.schedules)
  }

  /// Writes what `init(from:)` reads.
  public func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    try values.encode(model.id, forKey: .modelID)
    try values.encode(pipelineClass, forKey: .pipelineClass)
    try values.encode(model.fingerprint, forKey: .fingerprint)
    try values.encode(pipelines.map(\.text), forKey: .pipelines)
    try values.encode(limits.sizeMultiplePx, forKey: .sizeMultiple)
    try values.encode(limits.minSidePx, forKey: .minSide)
    try values.encode(limits.maxSidePx, forKey: .maxSide)
    try values.encode(limits.maxPixels, forKey: .maxPixels)
    try values.encode(recommendedSizes, forKey: .recommendedSizes)
    try values.encode(limits.maxSteps, forKey: .maxSteps)
    try values.encode(limits.maxPromptTokens, forKey: .maxPromptTokens)
    try values.encode(limits.maxPromptBytes, forKey: .maxPromptBytes)
    try values.encode(defaults.size, forKey: .defaultSize)
    try values.encode(defaults.steps, forKey: .defaultSteps)
    try values.encode(defaults.trueCFGScale, forKey: .defaultTrueCFGScale)
    try values.encode(defaults.negativePrompt, forKey: .defaultNegativePrompt)
    try values.encode(latents.channels, forKey: .latentChannels)
    try values.encode(latents.downscale, forKey: .latentDownscale)
    try values.encode(latents.patch, forKey: .latentPatch)
    try values.encode(references.referencePx, forKey: .referenceArea)
    try values.encode(references.conditionPx, forKey: .conditionArea)
    try values.encodeIfPresent(limits.scheduleSteps, forKey: .scheduleSteps)
    try values.encodeIfPresent(limits.maxReferenceTokens, forKey: .maxReferenceTokens)
    try values.encodeIfPresent(limits.denoiserBlocks, forKey: .denoiserBlocks)
    if references.maxCount != ReferenceAreas.standardMaxCount {
      try values.encode(references.maxCount, forKey: .maxReferences)
    }
    if hasTransparency { try values.encode(true, forKey: .hasTransparency) }
    if !license.isEmpty { try values.encode(license, forKey: .license) }
    try values.encode(samplers.map(\.rawValue), forKey: .samplers)
    try values.encode(schedules.map(\.rawValue), forKey: .schedules)
  }
}

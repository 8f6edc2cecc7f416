import ClusterCore
import Diffusion

extension Status {
  /// A model's error as the gateway understands it: wrong requests are final, everything else is this worker's fault.
  public init(_ error: PipelineError) {
    switch error {
    case .invalidRequest(let field, _): self.init(.invalidArgument, "\(error)", field: field)
    case .checkpoint: self.init(.internal, "\(error)")
    case .cancelled: self.init(.cancelled, "\(error)")
    }
  }
}

extension ModelCard {
  /// The grid of tokens of an image of `size`.
  ///
  /// - Throws: INVALID_ARGUMENT when the image is larger than the model takes, or its sides are not multiples of a
  ///   token's edge.
  public func grid(of size: ImageSize) throws(Status) -> TokenGrid {
    let edge = latents.tokenEdgePx
    guard size.widthPx > 0, size.heightPx > 0, size.widthPx % edge == 0, size.heightPx % edge == 0 else {
      throw Status(.invalidArgument, "size is \(size); its sides must be multiples of \(edge)", field: "size")
    }
    guard size.widthPx <= limits.maxPixels / size.heightPx else {
      throw Status(.invalidArgument, "size is \(size); the limit is \(limits.maxPixels) pixels", field: "size")
    }
    return latents.grid(of: size)
  }
}

/// Runs `body` and turns the models' errors into what the gateway understands.
public func reportingStatus<Result>(_ body: () throws -> Result) throws -> Result {
  do {
    return try body()
  } catch let error as PipelineError {
    throw Status(error)
  }
}

import ClusterCore
import Diffusion
import ImageCodec
import StageRuntime
import Wire

extension StageTask {
  /// An image of the request as it was decoded.
  ///
  /// - Throws: INVALID_ARGUMENT naming the tensor when it is missing or is no image.
  public func image(named name: String) throws(Status) -> RasterImage {
    let tensor = try requiredTensor(name), shape = tensor.shape
    guard tensor.dtype == .uint8, shape.count == 3, shape[0] > 0, shape[1] > 0, [1, 3, 4].contains(shape[2]) else {
      throw Status(
        .invalidArgument, "\(name) is \(tensor.dtype) \(shape); expected U8 [height, width, 1, 3 or 4 channels]",
        field: name)
    }
    return RasterImage(
      width: shape[1], height: shape[0], channels: shape[2], pixels: tensor.bytes.withUnsafeBytes { Array($0) })
  }

  /// An image of the request as a network is to see it.
  ///
  /// - Throws: INVALID_ARGUMENT naming the tensor when it is missing, is no image, or is smaller than the part to use.
  public func image(_ prepared: PreparedImage) throws(Status) -> RasterImage {
    let image = try image(named: prepared.tensor)
    if let region = prepared.preparation.region {
      guard region.right <= image.width, region.bottom <= image.height else {
        throw Status(
          .invalidArgument,
          "the region \(region.left),\(region.top) to \(region.right),\(region.bottom) is not within "
            + "\(prepared.tensor) of "
            + "\(image.width)x\(image.height)", field: prepared.tensor)
      }
    }
    return image.prepared(by: prepared.preparation)
  }
}

import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON

extension Outpainting {
  /// Longest side of a canvas: as of an image file.
  static let maxSidePx = 16_384

  /// Reads `outpaint`, an object with the number of pixels for each side, and `feather`; nil when the field is absent.
  ///
  /// - Throws: an error about the field `outpaint`.
  init?(_ fields: inout FieldReader) throws(APIError) {
    guard var sides = try fields.object("outpaint") else { return nil }
    do throws(APIError) {
      self.init(
        left: try sides.integer("left", in: Self.sideLimit) ?? 0,
        top: try sides.integer("top", in: Self.sideLimit) ?? 0,
        right: try sides.integer("right", in: Self.sideLimit) ?? 0,
        bottom: try sides.integer("bottom", in: Self.sideLimit) ?? 0,
        feather: try sides.integer("feather", in: Self.featherLimit) ?? Self.defaultFeather)
      try sides.refuseOthers()
    } catch {
      throw APIError(error.code, "outpaint: \(error.message)", param: "outpaint")
    }
    guard !isEmpty else {
      throw APIError(.invalidValue, "outpaint has no pixels on any side", param: "outpaint")
    }
  }

  /// Compares the canvas with the limits of images, before there is memory for it.
  func check(_ image: RasterImage, _ intake: ImageIntake) throws(APIError) {
    let canvas = ImageSize(widthPx: image.width + left + right, heightPx: image.height + top + bottom)
    guard max(canvas.widthPx, canvas.heightPx) <= Self.maxSidePx else {
      throw APIError(
        .invalidValue, "outpaint makes a canvas of \(canvas), the limit is \(Self.maxSidePx) a side", param: "outpaint")
    }
    let limit = min(intake.maxPixels, intake.maxRequestPixels)
    guard canvas.pixelCount <= limit else {
      throw APIError(
        .invalidValue,
        "outpaint makes a canvas of \(canvas), which is \(canvas.pixelCount) pixels; the limit is \(limit)",
        param: "outpaint")
    }
  }
}

// MARK: - In specifications

extension Outpainting {
  /// The name of the option.
  static let key = "outpaint"

  /// In the order in which the journal has them.
  private static let sides: KeyValuePairs = [
    "bottom": \Outpainting.bottom, "feather": \.feather, "left": \.left, "right": \.right, "top": \.top,
  ]

  /// What is made as ``ImageSpec/options`` keep it.
  var option: JSONObject {
    var object = JSONObject()
    for (name, side) in Self.sides { object[name] = .number(JSONNumber(text: "\(self[keyPath: side])")) }
    return object
  }

  /// Reads ``option``; nil: it is something else.
  init?(option: JSON?) {
    guard let option else { return nil }
    self.init(left: 0, top: 0, right: 0, bottom: 0)
    for (name, side) in Self.sides {
      guard let value = option[name]?.integer, (0...Self.maxSidePx).contains(value) else { return nil }
      self[keyPath: side] = value
    }
  }
}

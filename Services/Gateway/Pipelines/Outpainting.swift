import GatewayAPI
import ImageCodec

extension Outpainting {
  /// Reads `outpaint`, an object with the number of pixels for each side, and `feather`; nil when the field is absent.
  init?(_ fields: inout FieldReader) throws(APIError) {
    guard var sides = try fields.object("outpaint") else { return nil }
    self.init(
      left: try sides.integer("left", in: Self.sideLimit) ?? 0, top: try sides.integer("top", in: Self.sideLimit) ?? 0,
      right: try sides.integer("right", in: Self.sideLimit) ?? 0,
      bottom: try sides.integer("bottom", in: Self.sideLimit) ?? 0,
      feather: try sides.integer("feather", in: Self.featherLimit) ?? Self.defaultFeather)
    try sides.refuseOthers()
    guard !isEmpty else {
      throw APIError(.invalidValue, "outpaint has no pixels on any side", param: "outpaint")
    }
  }
}

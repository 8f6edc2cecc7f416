import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON

/// The object of an image that a request is about, and where it goes: the fields `region`, `boxes`, `move` and `scale`.
struct ObjectEdit: Hashable, Sendable {
  /// Where the object is; empty: the request's mask says it.
  var boxes: [PixelRegion]
  /// Where it goes; nil: it is drawn again in its place.
  var move: Move?

  /// Where an object goes.
  struct Move: Hashable, Sendable {
    /// Pixels to the right.
    var x: Int
    /// Pixels down.
    var y: Int
    /// Its size afterwards, as a multiple; its centre stays, but for `x` and `y`.
    var scale: Double
  }

  static let maxBoxes = 16
  private static let maxPx = 65_535
  private static let scales = 0.1...10.0

  /// Reads the fields; nil when none of them is there.
  init?(_ fields: inout FieldReader) throws(APIError) {
    let region = try fields.object("region").map { (box) throws(APIError) in try Self.box(box, "region") }
    let list = try fields.objects("boxes", maxCount: Self.maxBoxes)?.enumerated().map { (index, box) throws(APIError) in
      try Self.box(box, "boxes[\(index)]")
    }
    if region != nil, list != nil {
      throw APIError(.invalidValue, "region and boxes: give one of them", param: "region")
    }
    boxes = list ?? region.map { [$0] } ?? []
    let scale = try fields.number("scale", in: Self.scales)
    if var offset = try fields.object("move") {
      do throws(APIError) {
        let range = -Self.maxPx...Self.maxPx
        move = Move(x: try offset.integer("x", in: range) ?? 0, y: try offset.integer("y", in: range) ?? 0, scale: 1)
        try offset.refuseOthers()
      } catch { throw error.inside("move") }
    }
    if let scale { move = Move(x: move?.x ?? 0, y: move?.y ?? 0, scale: scale) }
    if boxes.isEmpty, move == nil { return nil }
  }

  private static func box(_ reader: FieldReader, _ field: String) throws(APIError) -> PixelRegion {
    var reader = reader
    do throws(APIError) {
      var sides: [Int] = []
      for (name, range) in [
        ("x", 0...maxPx), ("y", 0...maxPx), ("width", 1...maxPx), ("height", 1...maxPx),
      ] {
        guard let side = try reader.integer(name, in: range) else {
          throw APIError(.missingField, "\(name) is missing: a box has x, y, width and height", param: name)
        }
        sides.append(side)
      }
      try reader.refuseOthers()
      return PixelRegion(left: sides[0], top: sides[1], right: sides[0] + sides[2], bottom: sides[1] + sides[3])
    } catch { throw error.inside(field) }
  }

  /// The mask of the boxes, one channel, white within them; nil: there are no boxes.
  func mask(for size: ImageSize) throws(APIError) -> RasterImage? {
    guard !boxes.isEmpty else { return nil }
    var mask = RasterImage(width: size.widthPx, height: size.heightPx, filledWith: [0])
    for (index, box) in boxes.enumerated() {
      guard box.right <= size.widthPx, box.bottom <= size.heightPx else {
        throw APIError(
          .invalidValue, "box \(index) reaches to (\(box.right), \(box.bottom)), but the image is \(size)",
          param: boxes.count == 1 ? "region" : "boxes")
      }
      mask = mask.pasting(
        RasterImage(width: box.right - box.left, height: box.bottom - box.top, filledWith: [255]), left: box.left,
        top: box.top)
    }
    return mask
  }
}

// MARK: - Moving

extension ObjectEdit.Move {
  /// The image with its object in the new place.
  ///
  /// - Parameters:
  ///   - image: the image.
  ///   - object: one channel, of the image's size: how much of a pixel belongs to the object.
  /// - Returns: the image, in which the object is still in its old place too, and the mask of what is drawn again:
  ///   where the object was, and the edge around its new place.
  /// - Throws: when the mask is black, or the object would be more than twice the image.
  func applied(
    to image: RasterImage, object: RasterImage
  ) throws(APIError) -> (image: RasterImage, mask: RasterImage) {
    guard let bounds = object.bounds else {
      throw APIError(.invalidValue, "mask is black: it shows no object to move", param: "mask")
    }
    let width = max(1, Int((Double(bounds.width) * scale).rounded()))
    let height = max(1, Int((Double(bounds.height) * scale).rounded()))
    guard width <= 2 * image.width, height <= 2 * image.height else {
      throw APIError(
        .invalidValue, "scale makes the object \(width)x\(height), and the image is \(image.width)x\(image.height)",
        param: "scale")
    }
    func placed(_ part: RasterImage) -> RasterImage {
      let cut = part.cropped(to: bounds)
      return scale == 1 ? cut : cut.resized(width: width, height: height, filter: .lanczos)
    }
    let (left, top) = (
      bounds.left + (bounds.width - width) / 2 + x, bounds.top + (bounds.height - height) / 2 + y
    )
    let alpha = placed(object)
    let moved = image.pasting(placed(image), left: left, top: top, mask: alpha)
    let shown = RasterImage(width: image.width, height: image.height, filledWith: [0])
      .pasting(alpha, left: left, top: top)
    // A few pixels on both sides of the object's edge, so that it fits its new surroundings.
    let edge = shown.gaussianBlurred(radius: Double(max(1, min(width, height) / 32)))
    let mask = object.pixels.indices.map { index in
      (8...247).contains(edge.pixels[index]) || object.pixels[index] > shown.pixels[index] ? UInt8(255) : 0
    }
    return (moved, RasterImage(width: image.width, height: image.height, channels: 1, pixels: mask))
  }
}

extension RasterImage {
  /// The smallest region with all pixels of a mask that are not black; nil: all are.
  fileprivate var bounds: Region? {
    var columns: ClosedRange<Int>?, rows: ClosedRange<Int>?
    for row in 0..<height {
      let line = pixels[row * width..<(row + 1) * width]
      guard let first = line.firstIndex(where: { $0 > 0 }), let last = line.lastIndex(where: { $0 > 0 }) else {
        continue
      }
      let (left, right) = (first - line.startIndex, last - line.startIndex)
      columns = min(left, columns?.lowerBound ?? left)...max(right, columns?.upperBound ?? right)
      rows = (rows?.lowerBound ?? row)...row
    }
    guard let columns, let rows else { return nil }
    return Region(
      left: columns.lowerBound, top: rows.lowerBound, right: columns.upperBound + 1, bottom: rows.upperBound + 1)
  }
}

// MARK: - In specifications

extension ObjectEdit {
  /// The name of the option.
  static let key = "object"

  /// The edit as ``ImageSpec/options`` keep it.
  var option: JSONObject {
    func numbers(_ values: [Int]) -> JSON { .array(values.map { .number(JSONNumber(text: "\($0)")) }) }
    var object = JSONObject()
    object["boxes"] = .array(boxes.map { numbers([$0.left, $0.top, $0.right, $0.bottom]) })
    if let move {
      object["move"] = numbers([move.x, move.y])
      object["scale"] = .number(JSONNumber(move.scale))
    }
    return object
  }

  /// Says in what an image keeps where the object is, and where it goes.
  func describe(in source: inout ImageSource) {
    let boxes = boxes.map { box in
      ImageSource.Box(x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top)
    }
    if boxes.count == 1 { source.region = boxes[0] } else if !boxes.isEmpty { source.boxes = boxes }
    guard let move else { return }
    source.move = ImageSource.Offset(x: move.x, y: move.y)
    source.scale = move.scale
  }

  /// Reads ``option``; nil: it is something else.
  init?(option: JSON?) {
    guard let option, let boxes = option["boxes"]?.elements else { return nil }
    self.boxes = []
    for box in boxes {
      let sides = box.elements?.compactMap(\.integer) ?? []
      guard sides.count == 4, sides[0] >= 0, sides[1] >= 0, sides[0] < sides[2], sides[1] < sides[3],
        sides[2] <= 2 * Self.maxPx, sides[3] <= 2 * Self.maxPx
      else { return nil }
      self.boxes.append(PixelRegion(left: sides[0], top: sides[1], right: sides[2], bottom: sides[3]))
    }
    guard let offset = option["move"]?.elements?.compactMap(\.integer) else { return }
    guard offset.count == 2, offset.allSatisfy({ abs($0) <= Self.maxPx }), let scale = option["scale"]?.double,
      Self.scales.contains(scale)
    else { return nil }
    move = Move(x: offset[0], y: offset[1], scale: scale)
  }
}

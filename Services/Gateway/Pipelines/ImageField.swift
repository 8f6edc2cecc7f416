import GatewayAPI

/// A field of a request that holds images.
public struct ImageField: Hashable, Sendable {
  /// Its name, as errors say it: `image`, `control_image` or `mask`.
  public var name: String
  /// The place among its images that the name of a form's part says: `image[2]`.
  public var number: Int?

  /// What is known of such fields.
  static let all: [(name: String, role: InputReference.Role, maxCount: Int)] = [
    ("image", .image, ImageSpec.maxInputCount), ("control_image", .control, ImageSpec.maxControlCount),
    ("mask", .mask, 1),
  ]

  /// The field that a part of a form is: `image`, `images`, `image[]` and `image[0]` are all `image`; nil: no field of
  /// images.
  public init?(_ partName: String) {
    var base = partName.utf8[...]
    if partName.utf8.last == UInt8(ascii: "]") {
      guard let open = base.firstIndex(of: UInt8(ascii: "[")) else { return nil }
      let digits = base[base.index(after: open)...].dropLast()
      guard digits.count <= 4, digits.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else {
        return nil
      }
      number = Int(String(decoding: digits, as: UTF8.self))
      base = base[..<open]
    }
    switch String(decoding: base, as: UTF8.self) {
    case "image", "images": name = "image"
    case "control_image", "control_images": name = "control_image"
    case "mask": name = "mask"
    default: return nil
    }
  }

  /// The parts of a form that hold images: field by field, within one those with a number in the order of their
  /// numbers, and after them the others as they came. A part without bytes and without a file's name is left out.
  public static func sorted(_ parts: [MultipartForm.Part]) -> [(field: String, part: MultipartForm.Part)] {
    let images = parts.enumerated().compactMap { place, part in
      ImageField(part.name).map { (field: $0, place: place, part: part) }
    }
    return images.filter { !$0.part.bytes.isEmpty || $0.part.fileName?.isEmpty == false }.sorted {
      ($0.field.name, $0.field.number ?? .max, $0.place) < ($1.field.name, $1.field.number ?? .max, $1.place)
    }.map { ($0.field.name, $0.part) }
  }
}

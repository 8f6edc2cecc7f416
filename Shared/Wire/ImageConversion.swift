import CWire
import ClusterCore

extension PixelRegion: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__PixelRegion>) {
    qwenimage__v1__pixel_region__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.range("right", right, 1...FieldCheck.maxSidePx)
    try fields.range("bottom", bottom, 1...FieldCheck.maxSidePx)
    try fields.range("left", left, 0...(right - 1))
    try fields.range("top", top, 0...(bottom - 1))
  }

  func fill(_ message: inout Qwenimage__V1__PixelRegion, _ arena: CArena) {
    message.left = UInt32(left)
    message.top = UInt32(top)
    message.right = UInt32(right)
    message.bottom = UInt32(bottom)
  }

  init(_ message: Qwenimage__V1__PixelRegion, _ fields: FieldCheck) {
    self.init(
      left: Int(message.left), top: Int(message.top), right: Int(message.right), bottom: Int(message.bottom))
  }
}

extension PreparedImage: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__PreparedImage>) {
    qwenimage__v1__prepared_image__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("tensor", tensor)
    try fields.size(preparation.size)
    try preparation.region?.check(fields.inside("region"))
  }

  func fill(_ message: inout Qwenimage__V1__PreparedImage, _ arena: CArena) {
    message.tensor = arena.text(tensor)
    message.width_px = UInt32(preparation.size.widthPx)
    message.height_px = UInt32(preparation.size.heightPx)
    message.fit =
      preparation.fit == .fill ? QWENIMAGE__V1__IMAGE_FIT__IMAGE_FIT_FILL : QWENIMAGE__V1__IMAGE_FIT__IMAGE_FIT_STRETCH
    message.region = preparation.region?.pointer(arena)
  }

  init(_ message: Qwenimage__V1__PreparedImage, _ fields: FieldCheck) throws(WireError) {
    let size = ImageSize(widthPx: Int(message.width_px), heightPx: Int(message.height_px))
    let region = try message.region.map { region throws(WireError) in
      try PixelRegion.required(region, "region", of: fields)
    }
    let fit: ImagePreparation.Fit = message.fit == QWENIMAGE__V1__IMAGE_FIT__IMAGE_FIT_FILL ? .fill : .stretch
    self.init(tensor: String(field: message.tensor), ImagePreparation(size: size, region: region, fit: fit))
  }

  /// The image of a field that may be absent.
  static func optional(
    _ pointer: UnsafeMutablePointer<CMessage>?, _ field: String, of fields: FieldCheck
  ) throws(WireError) -> PreparedImage? {
    guard let pointer else { return nil }
    return try required(pointer, field, of: fields)
  }
}

extension EncodeImageRequest: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__EncodeImageRequest>) {
    qwenimage__v1__encode_image_request__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("model_id", modelID)
    try image.check(fields.inside("image"))
    try mask?.check(fields.inside("mask"))
    try fields.range("preceding_draws", precedingDraws, 0...FieldCheck.maxDraws)
  }

  func fill(_ message: inout Qwenimage__V1__EncodeImageRequest, _ arena: CArena) {
    message.model_id = arena.text(modelID)
    message.image = image.pointer(arena)
    message.posterior = Qwenimage__V1__PosteriorUse(rawValue: UInt32(posterior.rawValue))
    message.seed = seed
    message.preceding_draws = UInt32(precedingDraws)
    message.mask = mask?.pointer(arena)
  }

  init(_ message: Qwenimage__V1__EncodeImageRequest, _ fields: FieldCheck) throws(WireError) {
    self.init(
      modelID: String(field: message.model_id), image: try .required(message.image, "image", of: fields),
      posterior: try enumeration(message.posterior.rawValue, "posterior", of: fields), seed: message.seed,
      precedingDraws: Int(message.preceding_draws), mask: try .optional(message.mask, "mask", of: fields))
  }
}

extension EncodeImageResponse: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__EncodeImageResponse>) {
    qwenimage__v1__encode_image_response__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.size(size)
    try fields.seconds("compute_seconds", computeSeconds)
  }

  func fill(_ message: inout Qwenimage__V1__EncodeImageResponse, _ arena: CArena) {
    message.width_px = UInt32(size.widthPx)
    message.height_px = UInt32(size.heightPx)
    message.compute_seconds = computeSeconds
  }

  init(_ message: Qwenimage__V1__EncodeImageResponse, _ fields: FieldCheck) {
    self.init(
      size: ImageSize(widthPx: Int(message.width_px), heightPx: Int(message.height_px)),
      computeSeconds: message.compute_seconds)
  }
}

extension ControlReference: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Control>) {
    qwenimage__v1__control__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("tensor", tensor)
    try fields.range("network", network, 0...FieldCheck.maxControlNetworks)
    try fields.range("scale", scale, -100...100)
    try fields.range("start", range.lowerBound, 0...1)
    try fields.range("end", range.upperBound, 0...1)
  }

  func fill(_ message: inout Qwenimage__V1__Control, _ arena: CArena) {
    message.tensor = arena.text(tensor)
    message.network = UInt32(network)
    message.scale = scale
    message.start = range.lowerBound
    message.end = range.upperBound
  }

  init(_ message: Qwenimage__V1__Control, _ fields: FieldCheck) throws(WireError) {
    // Not a number compares false.
    guard message.start <= message.end else {
      throw .outOfRange(field: fields.name("start"), value: "\(message.start)", allowed: "at most end, \(message.end)")
    }
    self.init(
      tensor: String(field: message.tensor), network: Int(message.network), scale: message.scale,
      range: message.start...message.end)
  }
}

extension Overlay: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__Overlay>) {
    qwenimage__v1__overlay__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.identifier("image_tensor", imageTensor)
    try fields.identifier("mask_tensor", maskTensor)
    try region?.check(fields.inside("region"))
  }

  func fill(_ message: inout Qwenimage__V1__Overlay, _ arena: CArena) {
    message.image_tensor = arena.text(imageTensor)
    message.mask_tensor = arena.text(maskTensor)
    message.region = region?.pointer(arena)
  }

  init(_ message: Qwenimage__V1__Overlay, _ fields: FieldCheck) throws(WireError) {
    self.init(
      imageTensor: String(field: message.image_tensor), maskTensor: String(field: message.mask_tensor),
      region: try message.region.map { region throws(WireError) in
        try PixelRegion.required(region, "region", of: fields)
      })
  }
}

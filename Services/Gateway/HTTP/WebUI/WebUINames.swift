import ClusterCore
import Foundation

/// How models are called in A1111's API: by a title, `NAME [HASH]`, by a file name, or by name.
enum WebUIModelName {
  /// The model's own name in a title.
  static func name(inTitle title: String) -> String {
    var name = Substring(title)
    if name.last == "]", let bracket = name.range(of: " [", options: .backwards) { name = name[..<bracket.lowerBound] }
    for suffix in [".safetensors", ".ckpt"] where name.hasSuffix(suffix) { name = name.dropLast(suffix.count) }
    return String(name)
  }

  /// The first digits of the fingerprint, as A1111 shows those of a file's hash.
  static func hash(of model: ModelIdentity) -> String { String(model.fingerprint.prefix(10)) }
}

extension ModelLimits {
  /// The size that the model takes and that is nearest to `size`, whose proportions are kept where it is too large.
  package func nearest(to size: ImageSize) -> ImageSize {
    let (width, height) = (Double(size.widthPx), Double(size.heightPx))
    let scale = min(1, Double(maxSidePx) / max(width, height), (Double(maxPixels) / (width * height)).squareRoot())
    let sides = [width, height].map { side in
      let count = side * scale / Double(sizeMultiplePx)
      // Rounding up would bring a size that was made smaller above the limit again.
      // What is not a whole number by a rounding error is one.
      let whole = Int(scale < 1 ? (count + 1e-9).rounded(.down) : count.rounded()) * sizeMultiplePx
      let least = (minSidePx + sizeMultiplePx - 1) / sizeMultiplePx * sizeMultiplePx
      return min(max(whole, least), maxSidePx / sizeMultiplePx * sizeMultiplePx)
    }
    var (w, h) = (sides[0], sides[1])
    while w * h > maxPixels, max(w, h) > max(minSidePx, sizeMultiplePx) {
      if w >= h { w -= sizeMultiplePx } else { h -= sizeMultiplePx }
    }
    return ImageSize(widthPx: w, heightPx: h)
  }
}

import Kernels
import TensorCore

/// An image that is made from top to bottom, of which only some rows are in memory.
///
/// A decoder's images are large at its end, an encoder's at its beginning, where every pixel depends on a few
/// neighbours only. Streams hand each other bands of rows instead of whole images; since the kernels give the same
/// bytes whatever the band, so do decoder and encoder.
package protocol ImageStream: AnyObject {
  /// Where finished rows are. Rows after them belong to the stream.
  var window: RowWindow { get }
  /// Finishes the rows before `row`, and perhaps more.
  func produce(through row: Int)
}

/// Rows of an image [H, W, channels] on their way from one stream to the next; its memory moves down the image.
package final class RowWindow {
  package let height: Int
  package let width: Int
  package let channels: Int
  /// What is in memory: rows before it are used up.
  package private(set) var held: Range<Int>
  private var storage: Tensor
  private var first: Int

  /// An empty window.
  package init(height: Int, width: Int, channels: Int) {
    (self.height, self.width, self.channels) = (height, width, channels)
    held = 0..<0
    first = 0
    storage = Tensor.zeros([0, width, channels])
  }

  /// An image that is there already.
  package init(_ image: consuming Tensor) {
    (height, width, channels) = (image.shape[0], image.shape[1], image.shape[2])
    held = 0..<height
    first = 0
    storage = image
  }

  /// The rows held, for reading. They must be gone before the window is written again, or all of its memory is copied.
  package var rows: ImageRows { ImageRows(heldPixels, first: held.lowerBound, height: height) }

  /// Calls `body` with the rows held, for writing.
  package func write(_ body: (inout MutableImageRows) -> Void) {
    storage.withMutableRows(held.lowerBound - first..<held.upperBound - first) { pixels in
      var rows = MutableImageRows(pixels, first: held.lowerBound, height: height)
      body(&rows)
      pixels = rows.finish()
    }
  }

  private var heldPixels: Tensor { storage.rows(held.lowerBound - first..<held.upperBound - first) }

  /// Extends the window to the rows before `row`; their contents are undefined.
  package func extend(through row: Int) {
    precondition(row <= height, "row \(row) of \(height)")
    guard row > held.upperBound else { return }
    if row - first > storage.shape[0] { moveUp(for: row - held.lowerBound) }
    held = held.lowerBound..<row
  }

  /// Forgets the rows before `row`.
  package func release(before row: Int) { held = max(held.lowerBound, min(row, held.upperBound))..<held.upperBound }

  /// Puts the rows held at the start of the memory, which is made larger if it has less than `count` rows.
  private func moveUp(for count: Int) {
    let offset = held.lowerBound - first
    if storage.shape[0] >= count {
      storage.withMutableTensor { $0.moveRows(offset..<offset + held.count, to: 0) }
    } else {
      var larger = MutableTensor(uninitialized: [min(height, count + count / 2), width, channels])
      larger.copy(heldPixels, toRowsFrom: 0)
      storage = larger.finish()
    }
    first = held.lowerBound
  }
}

extension ImageStream {
  /// The whole image.
  package func collect(band: BandHeight) -> Tensor {
    var result = MutableTensor(uninitialized: [window.height, window.width, window.channels])
    var done = 0
    while done < window.height {
      let end = band.end(after: done, through: done + 1, window)
      produce(through: end)
      result.copy(window.rows[done..<end], toRowsFrom: done)
      window.release(before: end)
      done = end
    }
    return result.finish()
  }

  /// This image; if `probe` records, all of it, recorded and no longer in bands.
  package func recorded(_ name: @autoclosure () -> String, _ probe: Probe, band: BandHeight) -> any ImageStream {
    guard probe.isActive else { return self }
    let whole = collect(band: band)
    probe.record(name(), channelsFirst(whole))
    return StoredImage(whole)
  }
}

/// How many rows streams work on at a time.
package struct BandHeight: Sendable {
  /// Pixels of a band, at least.
  package let pixels: Int

  /// Bands of at least `pixels` pixels.
  package init(pixels: Int) { self.pixels = pixels }

  /// - Parameter pixels: nil: enough of them to keep all threads at work.
  package init(pixels: Int?, _ compute: Compute) {
    self.init(pixels: pixels ?? compute.threadCount * Self.pixelsPerThread)
  }

  private static let pixelsPerThread = 6144

  /// Where a band from row `start` on ends that includes the rows before `row`.
  package func end(after start: Int, through row: Int, _ window: RowWindow) -> Int {
    let grain = Compute.convolutionRowGrain
    let rows = max(row - start, pixels / window.width)
    return min(window.height, start + (rows + grain - 1) / grain * grain)
  }
}

/// An image that is there already.
package final class StoredImage: ImageStream {
  package let window: RowWindow

  /// `image` [H, W, C] is used up: streams write into its memory, unless another tensor shares it.
  package init(_ image: consuming Tensor) { window = RowWindow(image) }

  package func produce(through row: Int) {}
}

/// A convolution of another stream's image, perhaps of its norm or at twice its size.
package final class ConvolvedImage: ImageStream {
  package let window: RowWindow
  private let source: any ImageStream
  private let keepsSource: Bool
  private let normed: RowWindow?
  private let norm: Tensor?
  private let convolution: Convolution
  private let scale: Int
  private let band: BandHeight
  private let compute: Compute
  private var done = 0
  private var normedRows = 0

  /// - Parameters:
  ///   - keepsSource: whether the source's rows are needed once more.
  ///   - norm: γ of a channel norm, with SiLU, in front; only if not `upsampled`.
  package init(
    _ source: any ImageStream, keepingSource keepsSource: Bool = false, norm: Tensor? = nil,
    _ convolution: Convolution,
    upsampled: Bool = false, band: BandHeight, compute: Compute
  ) {
    precondition(norm == nil || !upsampled, "the norm of an upsampled image is not made")
    self.source = source
    self.keepsSource = keepsSource
    self.norm = norm
    self.convolution = convolution
    scale = upsampled ? 2 : 1
    self.band = band
    self.compute = compute
    let input = source.window
    normed = norm.map { _ in RowWindow(height: input.height, width: input.width, channels: input.channels) }
    window = RowWindow(height: scale * input.height, width: scale * input.width, channels: convolution.outChannels)
  }

  package func produce(through row: Int) {
    guard done < row else { return }
    let end = band.end(after: done, through: row, window)
    let needed = min(source.window.height, (end + scale) / scale)
    source.produce(through: needed)
    if let normed, let norm {
      compute.channelNorm(source.window, rows: normedRows..<needed, gamma: norm, into: normed)
      normedRows = needed
    }
    window.extend(through: end)
    window.write {
      compute.convolution(
        (normed ?? source.window).rows, convolution, upsampled: scale == 2, rows: done..<end, into: &$0)
    }
    // The next band begins one row above its own.
    normed?.release(before: end - 1)
    if !keepsSource { source.window.release(before: normed == nil ? end / scale - 1 : needed) }
    done = end
  }
}

/// A convolution with stride 2 of another stream's image, half as high and wide.
package final class DownsampledImage: ImageStream {
  package let window: RowWindow
  private let source: any ImageStream
  private let convolution: Convolution
  private let band: BandHeight
  private let compute: Compute
  private var done = 0

  package init(_ source: any ImageStream, _ convolution: Convolution, band: BandHeight, compute: Compute) {
    precondition(convolution.stride == 2, "a convolution with stride \(convolution.stride)")
    self.source = source
    self.convolution = convolution
    // A band here has a quarter of the pixels of the source's band that it is computed from.
    self.band = BandHeight(pixels: band.pixels / 4)
    self.compute = compute
    window = RowWindow(
      height: source.window.height / 2, width: source.window.width / 2, channels: convolution.outChannels)
  }

  /// Works band by band however many rows are wanted: rows wait here, where they are small, not in the source.
  package func produce(through row: Int) {
    while done < row {
      let end = band.end(after: done, through: done + 1, window)
      source.produce(through: min(source.window.height, 2 * end + 1))
      window.extend(through: end)
      window.write { compute.convolution(source.window.rows, convolution, rows: done..<end, into: &$0) }
      source.window.release(before: 2 * end)
      done = end
    }
  }
}

extension Compute {
  /// Appends the channel norm with SiLU of `rows` to `result`, another window.
  package func channelNorm(_ source: RowWindow, rows: Range<Int>, gamma: Tensor, into result: RowWindow) {
    result.extend(through: rows.upperBound)
    result.write { channelRMSNorm(source.rows, rows: rows, gamma: gamma, silu: true, into: &$0) }
  }

  /// Puts the channel norm with SiLU of `rows` in their place.
  package func channelNorm(_ window: RowWindow, rows: Range<Int>, gamma: Tensor) {
    window.write { channelRMSNorm(&$0, rows: rows, gamma: gamma, silu: true) }
  }
}

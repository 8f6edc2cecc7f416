import Diffusion
import Kernels
import TensorCore

/// A copy of another stream's rows, which stay where they are: for a branch that works in place while another one needs
/// them too.
final class CopiedImage: ImageStream {
  let window: RowWindow
  private let source: any ImageStream
  private var done = 0

  init(_ source: any ImageStream) {
    self.source = source
    window = RowWindow(height: source.window.height, width: source.window.width, channels: source.window.channels)
  }

  func produce(through row: Int) {
    guard done < row else { return }
    source.produce(through: row)
    window.extend(through: row)
    window.write { $0.copy(source.window.rows, rows: done..<row) }
    done = row
  }
}

/// A way around a stage, without weights.
enum Shortcut: Sendable {
  /// To an image of half the size, or of the same (diffusers `AvgDown3D`).
  case mean(PixelMean)
  /// To an image of twice the size (diffusers `DupUp3D`).
  case repetition(PixelRepetition)

  /// Around a stage of the encoder. Time is padded with zeros in front where the stage halves it, so of two frames that
  /// are averaged one counts.
  init(down stage: ResidualVAEConfiguration.Stage) {
    let (frames, scale) = (stage.frames, stage.scales ? 2 : 1)
    let count = stage.averagedValues / stage.output
    let terms = (0..<stage.output).map { channel in
      (channel * count..<(channel + 1) * count).compactMap { index in
        let (place, value) = (index % (scale * scale), index / (scale * scale))
        return value % frames == frames - 1
          ? PixelMean.Term(dy: place / scale, dx: place % scale, channel: value / frames) : nil
      }
    }
    self = .mean(PixelMean(inChannels: stage.input, scale: scale, divisor: count, terms: terms))
  }

  /// Around a stage of the decoder. Of two frames that it makes where it doubles time, the last one is the image.
  init(up stage: ResidualVAEConfiguration.Stage) {
    let frames = stage.frames, count = stage.repeatedValues / stage.input
    self = .repetition(
      PixelRepetition(inChannels: stage.input, outChannels: stage.output) { channel, dy, dx in
        (((channel * frames + frames - 1) * 2 + dy) * 2 + dx) / count
      })
  }

  /// The end of the rows that no row from `row` of the result on depends on.
  fileprivate func rowsUsed(before row: Int) -> Int {
    switch self {
    case .mean(let mean): mean.scale * row
    case .repetition: row / 2
    }
  }
}

extension Compute {
  /// Adds rows `rows` of a shortcut.
  fileprivate func add(_ x: ImageRows, _ shortcut: Shortcut, rows: Range<Int>, to sum: inout MutableImageRows) {
    switch shortcut {
    case .mean(let mean): add(x, mean, rows: rows, to: &sum)
    case .repetition(let repetition): add(x, repetition, rows: rows, to: &sum)
    }
  }

  /// The shortcut of a whole image [H, W, in].
  func shortcut(_ x: Tensor, _ shortcut: Shortcut) -> Tensor {
    let (height, width, channels) =
      switch shortcut {
      case .mean(let mean): (x.shape[0] / mean.scale, x.shape[1] / mean.scale, mean.outChannels)
      case .repetition(let repetition): (2 * x.shape[0], 2 * x.shape[1], repetition.outChannels)
      }
    var rows = MutableImageRows(MutableTensor(zeros: [height, width, channels]))
    add(ImageRows(x), shortcut, rows: 0..<height, to: &rows)
    return rows.finish().finish()
  }
}

/// A stage's image with the shortcut around it, in the place of the former.
final class ShortcutImage: ImageStream {
  let window: RowWindow
  private let stage: any ImageStream
  private let source: any ImageStream
  private let shortcut: Shortcut
  private let compute: Compute
  private var done = 0

  /// - Parameters:
  ///   - stage: the stage's image, which was made of a ``CopiedImage`` of `source`.
  ///   - source: the stage's input, whose rows are used up.
  init(_ stage: any ImageStream, _ source: any ImageStream, _ shortcut: Shortcut, compute: Compute) {
    self.stage = stage
    self.source = source
    self.shortcut = shortcut
    self.compute = compute
    window = stage.window
  }

  func produce(through row: Int) {
    guard done < row else { return }
    stage.produce(through: row)
    window.write { compute.add(source.window.rows, shortcut, rows: done..<row, to: &$0) }
    source.window.release(before: shortcut.rowsUsed(before: row))
    done = row
  }
}

import Foundation
import ImageCodec

/// A progress line on the terminal: what is being done, steps, and time left; above it, if wanted, what the image looks
/// like so far. Silent when standard error is not a terminal.
struct ProgressBar {
  private static let cells = 30
  private static let maxWidth = 120
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private var lastWidth = 0
  private var lastLine = ""
  private var preview: TerminalPreview?

  init(previews style: PreviewStyle = .off) {
    guard isTerminal, let style = style.resolved(ProcessInfo.processInfo.environment) else { return }
    preview = TerminalPreview(style)
  }

  /// Whether previews would be seen.
  var showsPreviews: Bool { preview != nil }

  /// Shows what the image looks like so far.
  mutating func show(_ image: RasterImage) {
    guard let sequence = preview?.sequence(image) else { return }
    FileHandle.standardError.write(Data(sequence.utf8))
    lastWidth = 0
    draw(lastLine)
  }

  /// Shows a stage that has no steps.
  mutating func show(_ stage: String) { draw(stage) }

  /// Shows `completed` of `total` steps, and how long the rest will take.
  mutating func show(_ stage: String, completed: Int, total: Int, secondsLeft: Double?) {
    draw(
      "\(stage) \(Self.bar(completed, of: total)) \(completed)/\(total)"
        + (secondsLeft.map { "  \(Self.duration($0)) left" } ?? ""))
  }

  /// Shows how much is done, in percent, and how long the rest will take.
  mutating func show(_ stage: String, percent: Int, secondsLeft: Double?) {
    draw(
      "\(stage) \(Self.bar(percent, of: 100)) \(percent) %" + (secondsLeft.map { "  \(Self.duration($0)) left" } ?? ""))
  }

  /// Clears the line.
  mutating func finish() { draw("") }

  // The numbers may be a gateway's: any are possible.
  private static func bar(_ completed: Int, of total: Int) -> String {
    let filled = total > 0 ? Int(Double(cells) * min(max(Double(completed) / Double(total), 0), 1)) : 0
    return String(repeating: "█", count: filled) + String(repeating: "░", count: cells - filled)
  }

  private mutating func draw(_ line: String) {
    guard isTerminal else { return }
    let text = Terminal.escaped(String(line.unicodeScalars.prefix(Self.maxWidth)))
    let padding = String(repeating: " ", count: max(0, lastWidth - text.count))
    FileHandle.standardError.write(Data("\r\(text)\(padding)\(text.isEmpty ? "\r" : "")".utf8))
    (lastWidth, lastLine) = (text.count, line)
  }

  static func duration(_ seconds: Double) -> String {
    guard (0..<1e9).contains(seconds) else { return "a long time" }
    let whole = Int(seconds.rounded(.up))
    return whole < 60
      ? "\(whole) s" : whole < 3600 ? "\(whole / 60) min \(whole % 60) s" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }
}

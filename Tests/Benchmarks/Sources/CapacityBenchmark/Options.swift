import Foundation

/// What is measured, and with what.
struct Options {
  static let help = """
    Measures what a gateway can serve: simulated workers over the real wire, clients over HTTP, no arithmetic.

      CapacityBenchmark [--OPTION VALUE …]

      --binaries DIR       where `gateway` (and for --curve `qwen-image`) is; .build/release
      --gateways N         gateways with one journal; more than one needs --journal-url; 1
      --journal-url URL    PostgreSQL in place of a SQLite file
      --journal-folder DIR where the SQLite file is made; a temporary folder
      --workers N          connected workers; 2000
      --shares A,B,C       of them, parts that are text encoders, denoisers and decoders; 10,80,10
      --credits N          of each worker; 1
      --rate N             jobs a second, at times of a Poisson process that no answer delays; 500
      --warmup SECONDS     before the measurement; 5
      --seconds SECONDS    of the measurement; 20
      --steps N            of a job; 4
      --step-ms N          how long one takes; 250
      --encode-ms N        50
      --decode-ms N        100
      --side N             of the images, in pixels: a checkpoint has side² bytes; 64
      --result-bytes N     of a finished image; 4096
      --prompt-bytes N     of a prompt; 100
      --follow HOW         how clients learn of the end: wait (long polling), events (SSE) or none; wait
      --curve yes          workers connect with CURVE keys
      --recovery N         then: queue N jobs with no worker there, end the gateway, start it again; 0
      --soak MINUTES       in place of --seconds; judges whether memory and descriptors stay; 0
      --output FILE        where the result is written as JSON
    """

  var binaries = ".build/release"
  var gateways = 1
  var journalURL: String?
  var journalFolder: String?
  var workers = 2000
  var shares = [10, 80, 10]
  var credits = 1
  var rate = 500.0
  var warmup = 5.0
  var seconds = 20.0
  var steps = 4
  var stepMs = 250
  var encodeMs = 50
  var decodeMs = 100
  var side = 64
  var resultBytes = 4096
  var promptBytes = 100
  var follow = Follow.wait
  var curve = false
  var recovery = 0
  var soakMinutes = 0.0
  var output: String?

  enum Follow: String { case wait, events, none }

  /// Reads the command line; nil: it is wrong, and standard error says how.
  init?(_ arguments: [String]) {
    var rest = arguments[...]
    while let name = rest.popFirst() {
      guard let value = rest.popFirst(), read(name, value) else {
        FileHandle.standardError.write(Data("cannot understand \(name)\n\n\(Self.help)\n".utf8))
        return nil
      }
    }
    if gateways > 1, journalURL == nil {
      FileHandle.standardError.write(Data("--gateways \(gateways) needs --journal-url\n".utf8))
      return nil
    }
  }

  private mutating func read(_ name: String, _ value: String) -> Bool {
    func integer(_ range: ClosedRange<Int>, _ set: (Int) -> Void) -> Bool {
      guard let number = Int(value), range.contains(number) else { return false }
      set(number)
      return true
    }
    func number(_ range: ClosedRange<Double>, _ set: (Double) -> Void) -> Bool {
      guard let number = Double(value), range.contains(number) else { return false }
      set(number)
      return true
    }
    switch name {
    case "--binaries": binaries = value
    case "--journal-url": journalURL = value
    case "--journal-folder": journalFolder = value
    case "--output": output = value
    case "--curve": curve = value == "yes"
    case "--follow":
      guard let how = Follow(rawValue: value) else { return false }
      follow = how
    case "--shares":
      shares = value.split(separator: ",").compactMap { Int($0) }
      return shares.count == 3 && shares.allSatisfy { (1...1000).contains($0) }
    case "--gateways": return integer(1...16) { gateways = $0 }
    case "--workers": return integer(3...9000) { workers = $0 }
    case "--credits": return integer(1...64) { credits = $0 }
    case "--steps": return integer(1...1000) { steps = $0 }
    case "--step-ms": return integer(1...60_000) { stepMs = $0 }
    case "--encode-ms": return integer(0...60_000) { encodeMs = $0 }
    case "--decode-ms": return integer(0...60_000) { decodeMs = $0 }
    case "--side": return integer(64...2048) { side = $0 / 16 * 16 }
    case "--result-bytes": return integer(64...(64 << 20)) { resultBytes = $0 }
    case "--prompt-bytes": return integer(20...10_000) { promptBytes = $0 }
    case "--recovery": return integer(0...1_000_000) { recovery = $0 }
    case "--rate": return number(0.1...100_000) { rate = $0 }
    case "--warmup": return number(0...3600) { warmup = $0 }
    case "--seconds": return number(1...86_400) { seconds = $0 }
    case "--soak": return number(0...100_000) { soakMinutes = $0 }
    default: return false
    }
    return true
  }
}

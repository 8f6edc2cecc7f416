import Foundation

/// What the system says of this process.
public struct ProcessStatistics: Sendable {
  /// Resident memory now.
  public var residentBytes: UInt64
  /// The peak RSS so far.
  public var peakResidentBytes: UInt64
  /// User and system time of all threads.
  public var cpuSeconds: Double
  /// Open file descriptors; nil where the system does not tell.
  public var openDescriptors: Int?

  /// Reads them now.
  public static func current() -> ProcessStatistics {
    var usage = rusage()
    #if os(Linux)
      getrusage(RUSAGE_SELF.rawValue, &usage)
      let peak = UInt64(clamping: usage.ru_maxrss) * 1024
    #else
      getrusage(RUSAGE_SELF, &usage)
      let peak = UInt64(clamping: usage.ru_maxrss)
    #endif
    let seconds = { (time: timeval) in Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    let resident = residentBytesNow() ?? peak
    return ProcessStatistics(
      residentBytes: resident, peakResidentBytes: max(peak, resident),
      cpuSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
      openDescriptors: try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count)
  }

  /// The second number of /proc/self/statm, in pages.
  private static func residentBytesNow() -> UInt64? {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
    let fields = text.split(separator: " ")
    guard fields.count > 1, let pages = UInt64(fields[1]) else { return nil }
    return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
  }
}

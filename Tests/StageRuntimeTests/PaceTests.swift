import StageRuntime
import Testing

@Suite struct PaceTests {
  /// A clock's reading.
  private struct Moment: InstantProtocol {
    var elapsed = Duration.zero

    func advanced(by duration: Duration) -> Moment { Moment(elapsed: elapsed + duration) }
    func duration(to other: Moment) -> Duration { other.elapsed - elapsed }
    static func < (left: Moment, right: Moment) -> Bool { left.elapsed < right.elapsed }
  }

  @Test func isDueOncePerInterval() {
    let start = Moment()
    var pace = Pace(every: .milliseconds(50), from: start)
    let due = stride(from: 9, through: 200, by: 9).filter { pace.isDue(at: start.advanced(by: .milliseconds($0))) }
    // Each counts from the one before, not from a grid.
    #expect(due == [54, 108, 162])
  }

  @Test func zeroIsAlwaysDue() {
    var pace = Pace(every: .zero, from: Moment())
    #expect(pace.isDue(at: Moment()) && pace.isDue(at: Moment()))
  }
}

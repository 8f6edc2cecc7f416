import StageRuntime
import Testing

@Suite struct PaceTests {
  @Test func isDueOncePerInterval() {
    let start = ContinuousClock.now
    var pace = Pace(every: .milliseconds(50), from: start)
    let due = stride(from: 9, through: 200, by: 9).filter { pace.isDue(at: start + .milliseconds($0)) }
    // Each counts from the one before, not from a grid.
    #expect(due == [54, 108, 162])
  }

  @Test func zeroIsAlwaysDue() {
    let start = ContinuousClock.now
    var pace = Pace(every: .zero, from: start)
    #expect(pace.isDue(at: start) && pace.isDue(at: start))
  }
}

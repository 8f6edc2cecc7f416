import Foundation
import Journal
import TestSupport
import Testing

@Suite("Space in the journal")
struct SpaceTests {
  private static func isFull(_ error: any Error) -> Bool {
    if case .some(.full) = error as? JournalError { true } else { false }
  }

  @Test(arguments: Engine.all) func oldJobsAreRemovedAndTheirSpaceIsFreed(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.retentionSeconds = 100
    let store = try journal.open(limits: limits)
    for number in 0..<20 {
      try store.apply([.admit(Sample.job("\(number)", key: "\(number)"))])
      try store.apply([
        Sample.finish("\(number)", Sample.payload(UInt64(number + 1), 300_000), atMs: Int64(number) * 1000)
      ])
    }
    try store.apply([.admit(Sample.job("open"))])
    let before = try store.space().usedBytes
    // 110.5 s after the first: those that ended before 10.5 s.
    #expect(try store.forgetOldJobs(nowMs: 110_500) == 11)
    #expect(
      try store.records(tenant: "t", before: nil, limit: 100).map(\.job.id) == ["open"]
        + (11..<20).reversed().map { "\($0)" })
    #expect(try store.job(ofKey: "3", tenant: "t") == nil, "a key lives as long as its job")
    #expect(try store.job(ofKey: "15", tenant: "t")?.job == "15")
    #expect(try store.space().usedBytes < before - 10 * 300_000)
    #expect(try store.forgetOldJobs(nowMs: 110_500) == 0)
    let again = try journal.reopen(store)
    #expect(try again.problems() == [])
    if let path = (again as? SQLiteJournalStore)?.path {
      again.close()
      let size = try #require(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int)
      #expect(size < 4_000_000, "the file has shrunk to \(size)")
    }
  }

  @Test(arguments: Engine.all) func theOldestResultsGoFirst(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.retentionBytes = 5_000
    let store = try journal.open(limits: limits)
    for number in 0..<10 {
      try store.apply([
        .admit(Sample.job("\(number)")),
        Sample.finish("\(number)", Sample.payload(UInt64(number + 1), 1_000), atMs: 1_000),
      ])
    }
    #expect(try store.forgetOldJobs(nowMs: 2_000) == 5)
    #expect(try store.records(tenant: nil, before: nil, limit: 100).map(\.job.id) == ["9", "8", "7", "6", "5"])
  }

  @Test(arguments: Engine.all) func jobsAreRefusedWhileThereIsSpaceForThoseThatRun(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.maxBytes = 4 << 20
    limits.reserveBytes = 2 << 20
    let store = try journal.open(limits: limits)
    var number = 0
    var refusal: (any Error)?
    while refusal == nil, number < 100 {
      do {
        try store.apply([
          .admit(Sample.job("\(number)")),
          Sample.progress("\(number)", steps: 1, Sample.payload(UInt64(number + 1), 200_000)),
        ])
        number += 1
      } catch { refusal = error }
    }
    #expect(Self.isFull(try #require(refusal)))
    #expect((5..<12).contains(number), "\(number) jobs were admitted")
    // Those that run still end.
    for job in 0..<number { try store.apply([Sample.finish("\(job)", Sample.payload(UInt64(job + 1000), 200_000))]) }
    #expect(try store.counts() == (0, number))
    #expect(try store.problems() == [])
  }

  /// More than fits is refused as a whole; nothing is damaged, and once something is removed there is space again.
  private func fill(_ store: any JournalStore) throws {
    try store.apply([.admit(Sample.job("a", images: 100))])
    var payload: UInt64 = 1
    var image = 0
    var refusal: (any Error)?
    while refusal == nil, image < 100 {
      do {
        try store.apply([Sample.progress("a", image, steps: 1, Sample.payload(payload, 150_000))])
        image += 1
        payload += 1
      } catch { refusal = error }
    }
    #expect(Self.isFull(try #require(refusal)), "\(String(describing: refusal))")
    #expect(image > 3)
    #expect(try store.openJobs().jobs[0].images.filter { !$0.progress.isEmpty }.count == image)
    // Ending a job still works, and frees space.
    for index in 0..<3 { try store.apply([Sample.fail("a", index)]) }
    try store.apply([Sample.progress("a", image, steps: 1, Sample.payload(payload, 150_000))])
    #expect(try store.problems() == [])
  }

  @Test func aFullQuotaRefusesAndDamagesNothing() throws {
    try withFolder { folder in
      var limits = JournalLimits()
      limits.maxBytes = 3 << 20
      limits.reserveBytes = 0
      try fill(SQLiteJournalStore(path: folder + "/j", limits: limits))
    }
  }

  @Test(.enabled(if: geteuid() == 0, "only root can mount a small disk")) func aFullDiskRefusesAndDamagesNothing()
    throws
  {
    try withFolder { folder in
      let disk = folder + "/disk"
      try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
      guard succeeds("/bin/mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk) else { return }
      defer { _ = succeeds("/bin/umount", "-l", disk) }
      var limits = JournalLimits()
      limits.reserveBytes = 6 << 20
      let store = try SQLiteJournalStore(path: disk + "/j", limits: limits)
      try fill(store)
      // What was set aside lets the jobs end.
      for index in 4..<8 { try store.apply([Sample.finish("a", index, Sample.payload(UInt64(1000 + index), 150_000))]) }
      store.close()
      #expect(try SQLiteJournalStore(path: disk + "/j", limits: limits).problems() == [])
    }
  }
}

import ClusterCore
import Foundation
import GRDB
import Journal
import Objects
import Testing

/// Both stores keep a journal's promises; S3's is tested with its protocol.
@Suite("Journals with objects", .timeLimit(.minutes(2)))
struct OffloadingTests {
  private static func opened(
    _ folder: String, limits: JournalLimits = JournalLimits(), _ objects: (any ObjectStore)? = nil,
    rules: ObjectRules = .small, events: Events = Events()
  ) throws -> (store: any JournalStore, base: SQLiteJournalStore) {
    let base = try SQLiteJournalStore(path: folder + "/j", limits: limits)
    let objects = try objects ?? FileObjectStore(directory: "\(folder)/objects/\(base.objectSpace)")
    return (try ObjectJournal.open(base, objects: objects, rules: rules) { events.append($0) }, base)
  }

  /// Whether `condition` holds after some of the calls that a writer makes every ten seconds.
  private static func tidied(_ store: any JournalStore, _ condition: () -> Bool) -> Bool {
    holds {
      _ = try? store.forgetOldJobs(nowMs: 3_000)
      return condition()
    }
  }

  /// Bytes in rows.
  private static func inRows(_ base: SQLiteJournalStore) throws -> Int {
    try base.database.read {
      try Int.fetchOne(
        $0,
        sql: """
          SELECT coalesce((SELECT sum(length(bytes)) FROM payloads), 0)
            + coalesce((SELECT sum(length(bytes)) FROM inputs), 0)
          """) ?? 0
    }
  }

  @Test func everythingComesBackAndLargeBytesAreFiles() throws {
    try withFolder { folder in
      let inputs = [Sample.input(1), Sample.input(2, 999)]
      let (checkpoint, result) = (Sample.payload(1, 5000), Sample.payload(2, 100_000))
      do {
        let (store, base) = try Self.opened(folder)
        try store.apply([
          .admit(Sample.job("a", images: 2, inputs: inputs)), Sample.progress("a", 0, task: 1, steps: 3, checkpoint),
          Sample.progress("a", 0, task: 0, steps: nil, Sample.payload(3, 500)),
          Sample.finish("a", 1, result),
        ])
        #expect(files(in: folder + "/objects").count == 3)
        #expect(try Self.inRows(base) == 999 + 500)
        store.close()
      }
      let (store, _) = try Self.opened(folder)
      let open = try store.openJobs()
      #expect(open.damaged.isEmpty)
      #expect(Set(open.jobs[0].record.job.inputs) == Set(inputs))
      #expect(open.jobs[0].images[0].progress.map(\.payload) == [Sample.payload(3, 500), checkpoint])
      #expect(try store.result(of: ImageReference(job: "a", index: 1)) == result)
      #expect(try store.record(of: "a", tenant: "t")?.outcomes[1] == .finished(byteCount: 100_000, promptTokens: 7))
      #expect(try store.problems() == [])
      // What led to a result goes with its end, results with their job.
      try store.apply([Sample.fail("a", 0)])
      #expect(Self.tidied(store) { files(in: folder + "/objects").count == 1 })
      try store.forgetOldJobs(nowMs: 1 << 50)
      #expect(Self.tidied(store) { files(in: folder + "/objects").isEmpty })
      #expect(try store.counts() == (0, 0))
      #expect(try store.problems() == [])
      store.close()
    }
  }

  @Test func checkpointsStayInTheJournalWhereThatIsSet() throws {
    try withFolder { folder in
      var rules = ObjectRules.small
      rules.includesProgress = false
      let (store, base) = try Self.opened(folder, rules: rules)
      try store.apply([.admit(Sample.job("a")), Sample.progress("a", steps: 1, Sample.payload(1, 5000))])
      #expect(try Self.inRows(base) == 5000)
      try store.apply([Sample.finish("a", 0, Sample.payload(2, 5000))])
      #expect(try Self.inRows(base) == 0)
      #expect(files(in: folder + "/objects").count == 1)
      store.close()
    }
  }

  @Test func eachCheckpointTakesThePlaceOfTheOneBefore() throws {
    try withFolder { folder in
      let (store, _) = try Self.opened(folder)
      try store.apply([.admit(Sample.job("a"))])
      for step in 1...30 { try store.apply([Sample.progress("a", steps: step, Sample.payload(UInt64(step)))]) }
      // An older one, which changes nothing.
      try store.apply([Sample.progress("a", steps: 5, Sample.payload(100))])
      #expect(Self.tidied(store) { files(in: folder + "/objects").count == 1 })
      #expect(try store.openJobs().jobs[0].images[0].progress[0].payload == Sample.payload(30))
      #expect(try store.problems() == [])
      store.close()
    }
  }

  @Test func whatSeveralHaveIsKeptOnceAndGoesWithTheLast() throws {
    try withFolder { folder in
      let (store, _) = try Self.opened(folder)
      let prompt = Sample.payload(7)
      try store.apply([
        .admit(Sample.job("a", images: 2, inputs: [Sample.input(1)])),
        .admit(Sample.job("b", inputs: [Sample.input(1)])),
        Sample.progress("a", 0, steps: nil, prompt), Sample.progress("a", 1, steps: nil, prompt),
      ])
      try store.apply([Sample.progress("b", steps: nil, prompt), .admit(Sample.job("c", inputs: [Sample.input(1)]))])
      try store.forgetOldJobs(nowMs: 3_000)
      #expect(files(in: folder + "/objects").count == 2)
      try store.apply([Sample.fail("a", 0), Sample.fail("a", 1), Sample.fail("b")])
      #expect(Self.tidied(store) { files(in: folder + "/objects").count == 1 })
      #expect(try store.openJobs().jobs.map(\.record.job.inputs) == [[Sample.input(1)]])
      // Again after its row is gone: an object of its own.
      try store.apply([Sample.progress("c", steps: nil, prompt)])
      #expect(try store.openJobs().jobs[0].images[0].progress[0].payload == prompt)
      #expect(try store.problems() == [])
      store.close()
    }
  }

  @Test func aRefusedChangeLeavesNothing() throws {
    try withFolder { folder in
      let (store, _) = try Self.opened(folder)
      try store.apply([.admit(Sample.job("a", inputs: [Sample.input(1)]))])
      #expect(throws: JournalError.self) { try store.apply([.admit(Sample.job("a", inputs: [Sample.input(2)]))]) }
      #expect(holds { files(in: folder + "/objects").count == 1 })
      #expect(try store.openJobs().jobs[0].record.job.inputs == [Sample.input(1)])
      store.close()
    }
  }

  // MARK: Groups

  @Test func aWriterWritesObjectsAtTheSameTimeAndKeepsTheOrder() throws {
    try withFolder { folder in
      let objects = ToyObjectStore(putSeconds: 0.05)
      // The writer forgets old jobs, and the samples are very old.
      var limits = JournalLimits()
      limits.retentionSeconds = 1 << 40
      let (store, base) = try Self.opened(folder, limits: limits, objects)
      let writer = JournalWriter(store) { _ in }
      writer.enqueue(.init(sequence: 1, changes: [.admit(Sample.job("a", images: 100))]))
      for number in 0..<100 {
        writer.enqueue(
          .init(sequence: UInt64(number + 2), changes: [Sample.finish("a", number, Sample.payload(UInt64(number + 1)))])
        )
      }
      writer.stop()
      #expect((2...ObjectRules().maxTransfers).contains(objects.mostPutsAtATime))
      #expect(try base.counts() == (0, 1))
      for number in 0..<100 {
        let result = try store.result(of: ImageReference(job: "a", index: number))
        #expect(result == Sample.payload(UInt64(number + 1)))
      }
      store.close()
    }
  }

  @Test func aRefusedBatchInAGroupWritesNoObjectTwice() throws {
    try withFolder { folder in
      let objects = ToyObjectStore(putSeconds: 0.02)
      let (store, _) = try Self.opened(folder, objects)
      let writer = JournalWriter(store) { _ in }
      for number in 1...20 {
        // 8 and 15 come twice.
        let id = number == 8 || number == 15 ? number - 1 : number
        writer.enqueue(
          .init(
            sequence: UInt64(number),
            changes: [.admit(Sample.job("\(id)", inputs: [Sample.input(UInt64(number))]))]))
      }
      writer.stop()
      #expect(objects.putCount == 20)
      #expect(try store.openJobs().jobs.count == 18)
      #expect(holds { objects.names.count == 18 }, "those of the refused ones are deleted")
      #expect(try store.problems() == [])
      store.close()
    }
  }

  // MARK: Faults of the store

  @Test func bytesStayInTheirRowsWhileTheStoreFails() throws {
    try withFolder { folder in
      let (objects, events) = (ToyObjectStore(), Events())
      let (store, base) = try Self.opened(folder, objects, events: events)
      try store.apply([.admit(Sample.job("a", images: 50, inputs: [Sample.input(1)]))])
      objects.fail(.unavailable("the toy is broken"))
      for number in 0..<20 { try store.apply([Sample.finish("a", number, Sample.payload(UInt64(number + 1)))]) }
      #expect(try Self.inRows(base) == 20 * 2000)
      for number in 0..<20 {
        #expect(
          try store.result(of: ImageReference(job: "a", index: number)) == Sample.payload(UInt64(number + 1)))
      }
      #expect(throws: JournalError.unavailable(reason: "the toy is broken")) { try store.openJobs() }
      guard case .unavailable = events.all.first else {
        Issue.record("\(events.all)")
        return
      }
      objects.fail(nil)
      var number = 20
      let isBack = try holds {
        try store.apply([Sample.finish("a", number, Sample.payload(UInt64(number + 1)))])
        number += 1
        usleep(150_000)
        return objects.names.count > 1
      }
      #expect(isBack, "after some seconds it is tried again")
      #expect(events.all.count == 2, "said once each: \(events.all)")
      #expect(try store.openJobs().jobs[0].record.job.inputs == [Sample.input(1)])
      #expect(try store.problems() == [])
      store.close()
    }
  }

  @Test func damagedObjectsAreFoundAndNeverReturned() throws {
    try withFolder { folder in
      let objects = ToyObjectStore()
      let (store, base) = try Self.opened(folder, objects)
      try store.apply([
        .admit(Sample.job("a", images: 2, inputs: [Sample.input(1)])), .admit(Sample.job("b")),
        Sample.progress("b", steps: 2, Sample.payload(1)), Sample.finish("a", 0, Sample.payload(2)),
      ])
      #expect(try store.problems() == [])
      let names = try base.objects(after: nil, limit: 10)
      #expect(names.count == 3)
      objects.change { objects in
        for (key, bytes) in objects { objects[key] = bytes.dropLast() + [bytes.last! ^ 1] }
      }
      #expect(throws: JournalError.self) { try store.result(of: ImageReference(job: "a", index: 0)) }
      let open = try store.openJobs()
      #expect(open.damaged.map(\.damage) == ["an image that job a begins with"])
      #expect(open.jobs.map(\.record.job.id) == ["b"])
      #expect(open.jobs[0].images[0].progress.isEmpty, "what is damaged is made again")
      #expect(try store.problems().count == 3)
      objects.change { $0 = [:] }
      #expect(try store.problems().count == 3)
      try store.fail(open.damaged, code: StatusCode(rawValue: 15)!, atMs: 3_000)
      #expect(try store.openJobs().damaged.isEmpty)
      store.close()
    }
  }

  @Test func objectsThatNothingNamesAreDeletedADayLater() throws {
    try withFolder { folder in
      let objects = ToyObjectStore()
      let events = Events()
      do {
        let (store, _) = try Self.opened(folder, objects)
        try store.apply([.admit(Sample.job("a")), Sample.finish("a", 0, Sample.payload(1))])
        store.close()
      }
      // As if a process had ended between the object and its row.
      let lost = Sample.bytes(99, 5000)
      let key = ObjectKey(of: lost)
      try objects.put(lost, as: key)
      do {
        let (store, _) = try Self.opened(folder, objects, events: events)
        usleep(200_000)
        #expect(objects.names.count == 2, "its row may be about to be written")
        #expect(try store.problems() == [])
        objects.age(86_401)
        #expect(try store.problems() == ["the object \(key.name) in a toy belongs to nothing"])
        store.close()
      }
      let (store, _) = try Self.opened(folder, objects, events: events)
      #expect(holds { objects.names.count == 1 })
      #expect(try store.result(of: ImageReference(job: "a", index: 0)) == Sample.payload(1))
      #expect(try store.problems() == [])
      store.close()
    }
  }

  @Test func objectsElsewhereAreRefusedBeforeAJobFailsForThem() throws {
    try withFolder { folder in
      do {
        let (store, _) = try Self.opened(folder)
        try store.apply([.admit(Sample.job("a", inputs: [Sample.input(1)]))])
        store.close()
      }
      #expect { try Self.opened(folder, ToyObjectStore()) } throws: { "\($0)".contains("none of the first 1 objects") }
      let (store, _) = try Self.opened(folder)
      #expect(try store.openJobs().jobs.count == 1)
      store.close()
    }
  }

  @Test func journalsKeepTheirObjectsApart() throws {
    try withFolder { folder in
      let spaces = try (0..<2).map { try SQLiteJournalStore(path: "\(folder)/\($0)").objectSpace }
      #expect(spaces[0] != spaces[1])
      #expect(spaces.allSatisfy { $0.count == 16 && $0.allSatisfy(\.isHexDigit) })
      #expect(try SQLiteJournalStore(path: "\(folder)/0").objectSpace == spaces[0])
    }
  }

  // MARK: Space

  @Test func objectsCountAsTheJournalsSpace() throws {
    try withFolder { folder in
      var limits = JournalLimits()
      (limits.maxBytes, limits.reserveBytes) = (4 << 20, 2 << 20)
      let (store, _) = try Self.opened(folder, limits: limits)
      var number = 0, refusal: JournalError?
      while refusal == nil, number < 100 {
        do throws(JournalError) {
          try store.apply([
            .admit(Sample.job("\(number)")),
            Sample.progress("\(number)", steps: 1, Sample.payload(UInt64(number + 1), 200_000)),
          ])
          number += 1
        } catch { refusal = error }
      }
      if case .full = try #require(refusal) {} else { Issue.record("\(refusal!)") }
      #expect((5..<12).contains(number), "\(number) jobs were admitted")
      #expect(try store.space().usedBytes > Int64(number) * 200_000)
      // Those that run still end.
      for job in 0..<number {
        try store.apply([Sample.finish("\(job)", 0, Sample.payload(UInt64(job + 1000), 50_000))])
      }
      #expect(try store.counts() == (0, number))
      let isFree = try holds {
        try store.forgetOldJobs(nowMs: 3_000)
        return try store.space().usedBytes < 2 << 20
      }
      #expect(isFree)
      #expect(try store.problems() == [])
      store.close()
    }
  }

  /// Results count for the retention whatever keeps them.
  @Test func theOldestResultsGoFirst() throws {
    try withFolder { folder in
      var limits = JournalLimits()
      limits.retentionBytes = 10_000
      let (store, _) = try Self.opened(folder, limits: limits)
      for number in 0..<10 {
        try store.apply([
          .admit(Sample.job("\(number)")), Sample.finish("\(number)", 0, Sample.payload(UInt64(number + 1))),
        ])
      }
      #expect(try store.forgetOldJobs(nowMs: 2_000) == 5)
      #expect(Self.tidied(store) { files(in: folder + "/objects").count == 5 })
      store.close()
    }
  }
}

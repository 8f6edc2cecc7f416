import ClusterCore
import Foundation
import Journal
import Objects
import Synchronization
import Testing

@Suite("Dumps of journals with objects") struct DumpTests {
  /// What is an object in one journal is in the dump, and in the rows of the journal that the dump goes into.
  @Test func bytesAreInTheDump() throws {
    try withFolder { folder in
      let (result, input) = (Sample.payload(1, 4000), Sample.input(1))
      let path = folder + "/j"
      var rules = ObjectRules()
      rules.threshold = 1000
      let base = try SQLiteJournalStore(path: path)
      let directory = "\(folder)/objects/\(base.objectSpace)"
      let store = try ObjectJournal.open(base, objects: FileObjectStore(directory: directory), rules: rules)
      try store.apply([.admit(Sample.job("a", inputs: [input])), .admit(Sample.job("b"))])
      try store.apply([Sample.finish("b", 0, result)])
      store.close()
      #expect(files(in: directory).count == 2)

      let archive = try SQLiteJournalStore(path: path), objects = try FileObjectStore(directory: directory)
      defer { archive.close() }
      let dump = Mutex(Data())
      // Without a way to them, they are not left out in silence.
      #expect(throws: JournalError.self) { try JournalDump.write(archive) { _ in } }
      let count = try JournalDump.write(
        archive, objects: { try objects.get(try #require(ObjectKey($0.name)), byteCount: $0.byteCount) },
        { part in dump.withLock { $0 += part } })
      #expect(count == 2)

      let copy = try SQLiteJournalStore(path: folder + "/copy")
      defer { copy.close() }
      let place = Mutex(0), bytes = dump.withLock { $0 }
      let read = try JournalDump.read(copy) { count in
        place.withLock { place in
          defer { place = min(bytes.count, place + count) }
          return bytes[place..<min(bytes.count, place + count)]
        }
      }
      #expect(read == 2)
      #expect(try copy.result(of: ImageReference(job: "b", index: 0)) == result)
      #expect(try copy.openJobs().jobs.map(\.record.job.inputs) == [[input]])
      #expect(try copy.problems() == [] && copy.objects(after: nil, limit: 10) == [])
    }
  }
}

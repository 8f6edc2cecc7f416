import Foundation
import Objects
import TestSupport
import Testing

@Suite("Objects in files", .timeLimit(.minutes(2)))
struct FileTests {
  @Test func whatIsPutIsWhatIsThere() throws {
    try withFolder { folder in
      let store = try FileObjectStore(directory: folder + "/a/b")
      try store.check()
      #expect(files(in: folder) == [], "the check leaves nothing")
      var keys: [ObjectKey: Data] = [:]
      for number in 0..<40 {
        let bytes = Sample.bytes(UInt64(number), number * 997)
        let key = ObjectKey(of: bytes)
        try store.put(bytes, as: key)
        keys[key] = bytes
      }
      let again = try FileObjectStore(directory: folder + "/a/b")
      for (key, bytes) in keys {
        #expect(try again.get(key, byteCount: bytes.count) == bytes)
        #expect(try again.contains(key))
        var status = stat()
        #expect(stat("\(folder)/a/b/\(key.path)", &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600, "what clients send is private")
      }
      #expect(files(in: folder + "/a/b") == keys.keys.map(\.path).sorted())
      let some = Array(keys.keys.prefix(20))
      try store.delete(some)
      try store.delete(some)
      #expect(files(in: folder + "/a/b").count == 20)
      #expect(throws: ObjectError.self) { try store.get(some[0], byteCount: 3) }
      #expect(try !store.contains(some[0]))
    }
  }

  @Test func whatIsDamagedIsNotReturned() throws {
    try withFolder { folder in
      let store = try FileObjectStore(directory: folder)
      let bytes = Sample.bytes(1, 5000)
      let key = ObjectKey(of: bytes)
      try store.put(bytes, as: key)
      let path = "\(folder)/\(key.path)"
      func problem(_ byteCount: Int = 5000) -> ObjectError? {
        do throws(ObjectError) {
          _ = try store.get(key, byteCount: byteCount)
          return nil
        } catch { return error }
      }
      #expect(problem(4999) == .corrupt("\(path) has 5000 bytes, not 4999"))
      var damaged = bytes
      damaged[4321] ^= 4
      try damaged.write(to: URL(filePath: path))
      #expect(problem() == .corrupt("the 5000 bytes of \(path) are not those that were written"))
      try bytes.prefix(100).write(to: URL(filePath: path))
      #expect(problem() == .corrupt("\(path) has 100 bytes, not 5000"))
      unlink(path)
      #expect(problem() == .missing("there is no file \(path)"))
      symlink("/etc/passwd", path)
      if case .unavailable = problem() {} else { Issue.record("a link is followed: \(String(describing: problem()))") }
    }
  }

  @Test func listsHaveEveryObjectOnceAndNothingElse() throws {
    try withFolder { folder in
      let store = try FileObjectStore(directory: folder)
      let keys = (0..<150).map { ObjectKey(of: Sample.bytes($0, 10)) }
      for (number, key) in keys.enumerated() { try store.put(Sample.bytes(UInt64(number), 10), as: key) }
      // Drafts of processes that have ended, and strangers.
      let (young, old) = ("\(folder)/00/.draft-young", "\(folder)/00/.draft-old")
      for path in [young, old, "\(folder)/00/stranger", "\(folder)/stranger"] {
        #expect(FileManager.default.createFile(atPath: path, contents: Data("x".utf8)))
      }
      try FileManager.default.setAttributes(
        [.modificationDate: Date(timeIntervalSince1970: 1e9)], ofItemAtPath: old)
      var found: [String] = [], place: String?
      repeat {
        let page = try store.list(after: place, limit: 40)
        #expect(page.entries.allSatisfy { $0.byteCount == 10 && (0...3600).contains($0.ageSeconds) })
        found += page.entries.map(\.key.path)
        place = page.next
      } while place != nil
      #expect(found == keys.map(\.path).sorted())
      #expect(access(young, F_OK) == 0)
      #expect(access(old, F_OK) != 0, "a draft is left for a day")
    }
  }

  @Test(.enabled(if: geteuid() == 0, "only root can mount a small disk")) func aFullDiskIsSaidAndLeavesNothing() throws
  {
    try withFolder { folder in
      let disk = folder + "/disk"
      try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
      guard succeeds("/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk) else { return }
      defer { _ = succeeds("/bin/umount", "-l", disk) }
      let store = try FileObjectStore(directory: disk)
      let bytes = Sample.bytes(1, 300_000)
      var count = 0
      var problem: ObjectError?
      while problem == nil, count < 20 {
        do throws(ObjectError) {
          try store.put(bytes, as: ObjectKey(of: bytes))
          count += 1
        } catch { problem = error }
      }
      if case .full(let text) = try #require(problem) {
        #expect(text.contains(disk))
      } else {
        Issue.record("\(problem!)")
      }
      #expect((3..<7).contains(count))
      #expect(files(in: disk).count == count, "no draft is left")
      #expect(try #require(store.freeBytes()) < 400_000)
    }
  }

  @Test func aDirectoryThatCannotBeMadeIsNamed() throws {
    try withFolder { folder in
      #expect(FileManager.default.createFile(atPath: folder + "/file", contents: Data()))
      #expect { try FileObjectStore(directory: folder + "/file/x") } throws: { "\($0)".contains(folder + "/file/x") }
    }
  }
}

// Tests/sanitize.sh thread compiles this and requires a report of `racing`, and none of the others, which runtime.c
// explains.

import Dispatch
import Foundation

/// A value that threads change, with or without an order between them.
final class Box: @unchecked Sendable {
  var value = 0
  var list = Array(repeating: 0, count: 64)
}

func onThread(_ body: @escaping @Sendable () -> Void) { Thread.detachNewThread(body) }

/// Lets other threads run; orders nothing.
func idle(_ times: Double = 1) { Thread.sleep(forTimeInterval: 0.0005 * times) }

/// Two threads change one number, again and again at the same time.
func racing() {
  let box = Box()
  let threads = DispatchGroup()
  for _ in 0..<2 {
    threads.enter()
    onThread {
      for _ in 0..<50 {
        box.value += 1
        idle()
      }
      threads.leave()
    }
  }
  threads.wait()
}

/// One thread reads an array and gives it up; another one, then the only owner, changes it in place.
func copyOnWrite() {
  for _ in 0..<20 {
    let box = Box()
    let snapshot = box.list
    let threads = DispatchGroup()
    threads.enter()
    onThread {
      idle()
      precondition(snapshot.reduce(0, +) == 0)
      threads.leave()
    }
    idle(4)
    for index in box.list.indices { box.list[index] += 1 }
    threads.wait()
  }
}

/// A continuation is resumed before the task waits for it.
func continuation() async {
  for _ in 0..<20 {
    let list: [Int] = await withCheckedContinuation { continuation in
      onThread { continuation.resume(returning: Array(repeating: 1, count: 64)) }
      idle(4)
    }
    precondition(list.reduce(0, +) == 64)
  }
}

@main
struct Races {
  static func main() async {
    switch CommandLine.arguments.dropFirst().first {
    case "racing": racing()
    case "copy-on-write": copyOnWrite()
    case "continuation": await continuation()
    default: fatalError("racing, copy-on-write or continuation")
    }
  }
}

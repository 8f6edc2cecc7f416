import ClusterCore
import Foundation
import GatewayDispatch
import GatewayPipelines
import Scheduling
import Testing

/// What gateways tell one another is within its bounds, and nothing else is taken.
@Suite struct ReplicaMessageTests {
  private static let position = EventPosition(epoch: 7, number: 12)

  private static var progress: RemoteProgress {
    var image = ImageProgress(steps: 50)
    image.apply(.started(.denoiser, isMain: true))
    image.apply(.progressed(step: 20, steps: 50, secondsLeft: 1.5))
    return RemoteProgress(image)
  }

  private static let messages: [ReplicaMessage] = [
    .watch(job: "job-1", after: nil), .watch(job: "job-1", after: position), .unwatch(job: "job-1"),
    .event(
      job: "job-1", at: position, image: 3, update: .progressed(step: 4, steps: 50, secondsLeft: 2.5), atMs: 5),
    .event(
      job: "job-1", at: position, image: 0, update: .queued(position: 1, secondsLeft: nil, secondsToStart: 3), atMs: nil
    ),
    .event(job: "job-1", at: position, image: 0, update: .ended, atMs: 5),
    .state(request: 4, job: "job-1", at: position, images: Array(repeating: progress, count: 10)),
    .unchanged(job: "job-1"), .notMine(job: "job-1"),
    .ask(request: 1, jobs: (0..<100).map { "job-\(String(repeating: "f", count: 30))\($0)" }),
    .cancel(request: 2, job: "job-1", tenant: "t", image: nil, reason: "enough"), .cancelled(request: 2),
  ]

  @Test func messagesComeAsTheyWereSentInFramesOfTheirSize() throws {
    let encoded = try Self.messages.map { try #require(ReplicaFrame.encoded($0, maxBytes: 5000)) }
    let many = Array(repeating: encoded, count: 20).flatMap { $0 }
    let frames = ReplicaFrame.frames(many, maxBytes: 5000)
    #expect(frames.allSatisfy { $0.count <= 5000 })
    #expect(frames.count < many.count / 5)
    let received = try frames.flatMap { try #require(ReplicaFrame.messages(in: $0)) }
    #expect(received == Array(repeating: Self.messages, count: 20).flatMap { $0 })
  }

  @Test func whatALaterVersionAddsIsLeftOut() {
    let frame = Data(#"{"v":1,"m":[{"unwatch":{"job":"a"}},{"gossip":{"about":"b"}},{"notMine":{"job":"c"}}]}"#.utf8)
    #expect(ReplicaFrame.messages(in: frame) == [.unwatch(job: "a"), .notMine(job: "c")])
    #expect(ReplicaFrame.messages(in: Data(#"{"v":2,"m":[]}"#.utf8)) == nil)
    #expect(ReplicaFrame.messages(in: Data("[]".utf8)) == nil)
    #expect(ReplicaFrame.messages(in: Data([0xFF])) == nil)
  }

  @Test(arguments: [
    ReplicaMessage.watch(job: "", after: nil), .watch(job: String(repeating: "j", count: 101), after: nil),
    .event(job: "j", at: EventPosition(epoch: 1, number: 0), image: 0, update: .ended, atMs: nil),
    .event(job: "j", at: position, image: 10, update: .ended, atMs: nil),
    .event(job: "j", at: position, image: -1, update: .ended, atMs: nil),
    .state(request: nil, job: "j", at: position, images: []),
    .state(request: nil, job: "j", at: position, images: Array(repeating: progress, count: 11)),
    .ask(request: 1, jobs: Array(repeating: "j", count: 101)),
    .cancel(request: 1, job: "j", tenant: "", image: 10, reason: ""),
    .cancel(request: 1, job: "j", tenant: "", image: nil, reason: String(repeating: "r", count: 1001)),
  ])
  func whatIsOutOfBoundsIsLeftOut(_ message: ReplicaMessage) throws {
    let data = try #require(ReplicaFrame.encoded(message, maxBytes: 50_000))
    #expect(ReplicaFrame.messages(in: ReplicaFrame.frames([data], maxBytes: 60_000)[0]) == [])
  }

  @Test func tooLargeMessagesAreNotSent() {
    #expect(ReplicaFrame.encoded(.unwatch(job: String(repeating: "j", count: 5000)), maxBytes: 5000) == nil)
  }

  @Test func positionsAreThoseOfEvents() {
    #expect(EventPosition("7-12") == Self.position)
    #expect(Self.position.text == "7-12")
    for text in ["", "7", "7-", "-12", "7-12-1", "end-1", "end", "7--12", "a-1", "7-99999999999999999999"] {
      #expect(EventPosition(text) == nil, "\(text)")
    }
  }

  @Test func updatesThatMakeNoSenseHaveNoEffect() {
    for update: RemoteUpdate in [
      .queued(position: 0, secondsLeft: nil, secondsToStart: nil), .started(stage: "No Stage", isMain: true),
      .progressed(step: -1, steps: 4, secondsLeft: 0), .progressed(step: 1, steps: 1 << 40, secondsLeft: 0),
    ] {
      #expect(update.update == nil)
    }
    var image = ImageProgress(steps: 4)
    var progress = Self.progress
    progress.step = 99
    image.take(progress)
    #expect(image.step == 4 && image.stage == .denoiser)
  }

  // MARK: Notes

  @Test func notesAreBoundedAndComeBack() throws {
    var note = OwnerNote()
    for number in 0..<1000 {
      let name = "tenant-\(number)-\(String(repeating: "x", count: 200))"
      note.tenants[name] = OwnerNote.Entry(open: number, inputBytes: 5, requests: 3)
    }
    let data = note.encoded()
    #expect(data.count <= 64 << 10)
    let read = try #require(OwnerNote(data))
    #expect(read.tenants.count > 50)
    // Those with the most stay, and the others' images count.
    #expect(read.tenants.values.map(\.open).max() == 999)
    #expect(read.load.openJobs == (0..<1000).reduce(0, +))
  }

  @Test(arguments: ["", "{}", #"{"version":2,"tenants":{},"isLeaving":false,"otherImages":0,"inputBytes":0}"#])
  func otherNotesAreNone(_ text: String) { #expect(OwnerNote(Data(text.utf8)) == nil) }
}

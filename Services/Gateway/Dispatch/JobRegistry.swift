import ClusterCore
import GatewayPipelines
import ImageCodec
import Journal
import Provenance
import Scheduling
import Wire

/// The jobs that have not ended, who listens to them and who waits for them. The scheduler knows each image as a job of
/// its own.
struct JobRegistry {
  /// An image that the scheduler knows. A class like ``OpenJob``.
  final class Image {
    private let job: OpenJob
    private let index: Int
    private let makeTasks: @Sendable (ImageSpec) -> [PipelineTask]
    /// From the pipeline; kept from the first offer on. Images that wait have none: they take more memory than all else
    /// of an image.
    private var keptTasks: [PipelineTask]?
    /// Of each task that encodes a prompt, by its place in the plan.
    var promptTokensOfTasks: [Int: Int] = [:]

    init(_ index: Int, of job: OpenJob, _ pipeline: Pipeline) {
      (self.index, self.job, makeTasks) = (index, job, pipeline.tasks)
    }

    var reference: ImageReference { ImageReference(job: job.id, index: index) }
    var spec: ImageSpec { job.request.images[index] }
    var traceparent: String? { job.request.traceparent }
    var promptTokens: Int { promptTokensOfTasks.values.reduce(0, +) }
    var tasks: [PipelineTask] { keptTasks ?? makeTasks(spec) }

    /// From now on they are at hand.
    fileprivate func keepTasks() { if keptTasks == nil { keptTasks = makeTasks(spec) } }
  }

  private struct TenantKey: Hashable {
    let tenant: TenantID
    let text: String
  }

  private(set) var jobs: [String: OpenJob] = [:]
  private(set) var images: [ImageJobID: Image] = [:]
  /// The images that the jobs begin with.
  private(set) var inputs = InputStore()
  /// Open jobs by the idempotency key of their request.
  private var keys: [TenantKey: String] = [:]
  private var lastListener: UInt64 = 0
  /// Waiting for the answer of the journal to a submission.
  private var admissions: [String: Waiters<Status?>] = [:]
  /// Waiting for the end of a job.
  private var endings: [String: Waiters<Void>] = [:]
  /// Waiting until no client waits for an image any more.
  private var idle = Waiters<Void>()
  /// Names the events of this run.
  let epoch: Int64
  /// Whether jobs are resumed after a restart.
  let isDurable: Bool

  init(epoch: Int64, isDurable: Bool) {
    self.epoch = epoch
    self.isDurable = isDurable
  }

  // MARK: Coming and going

  /// Registers a job; the journal is yet to have it unless `isAdmitted`.
  mutating func insert(_ job: OpenJob, images: [ImageJobID: Image]) {
    job.request.inputs = inputs.retain(job.request.inputs, for: job.request.tenant)
    jobs[job.id] = job
    if let key = job.request.key { keys[TenantKey(tenant: job.request.tenant, text: key.text)] = job.id }
    self.images.merge(images) { $1 }
  }

  /// The open job that a tenant has sent under a key.
  func job(of key: IdempotencyKey, tenant: TenantID) -> OpenJob? {
    keys[TenantKey(tenant: tenant, text: key.text)].flatMap { jobs[$0] }
  }

  /// The open job of that name, if it is the tenant's and the journal has it.
  func job(_ id: String, of tenant: TenantID) -> OpenJob? {
    jobs[id].flatMap { $0.isAdmitted && $0.request.tenant == tenant ? $0 : nil }
  }

  /// The journal has the job of this image.
  mutating func admit(_ id: ImageJobID) {
    guard let name = images[id]?.reference.job, jobs[name]?.isAdmitted == false else { return }
    jobs[name]?.isAdmitted = true
    admissions[name]?.resume(returning: nil)
    admissions[name] = nil
  }

  /// The job of this image does not exist.
  mutating func reject(_ id: ImageJobID, _ status: Status) {
    guard let name = images[id]?.reference.job else { return }
    images[id] = nil
    guard let job = jobs[name] else { return }
    job.finishListeners()
    forget(job)
    admissions[name]?.resume(returning: status)
    admissions[name] = nil
  }

  /// Passes an update on to the listeners of the image's job; after the last one of its last image the job is over.
  ///
  /// - Parameter atMs: when it happened, in milliseconds since 1970.
  mutating func notify(_ id: ImageJobID, _ update: ImageUpdate, atMs: Int64) {
    guard let reference = images[id]?.reference else { return }
    jobs[reference.job]?.notify(reference.index, update, epoch: epoch, atMs: atMs)
    guard update.isTerminal else { return }
    images[id] = nil
    if let job = jobs[reference.job], job.openCount == 0 {
      job.finishListeners()
      forget(job)
      endings[job.id]?.resume(returning: ())
      endings[job.id] = nil
    }
    if !idle.isEmpty, attachedImageCount == 0 { idle.resume(returning: ()) }
  }

  /// Shows the listeners of the image's job what it looks like so far.
  func notify(_ id: ImageJobID, preview: RasterImage, origin: ImageOrigin?) {
    guard let reference = images[id]?.reference else { return }
    jobs[reference.job]?.notify(reference.index, preview: preview, origin: origin, epoch: epoch)
  }

  /// Lets go of a job that another owner takes over, with its listeners; of one that the journal does not have, the
  /// submission is refused with `refusal`.
  mutating func handOver(_ id: String, refusal: Status) -> OpenJob? {
    guard let job = jobs[id] else { return nil }
    for image in imageIDs(of: id) { images[image] = nil }
    forget(job)
    endings[id]?.resume(returning: ())
    endings[id] = nil
    guard !job.isAdmitted else { return job }
    job.finishListeners()
    admissions[id]?.resume(returning: refusal)
    admissions[id] = nil
    return nil
  }

  private mutating func forget(_ job: OpenJob) {
    jobs[job.id] = nil
    inputs.release(job.request.inputs, of: job.request.tenant)
    if let key = job.request.key { keys[TenantKey(tenant: job.request.tenant, text: key.text)] = nil }
  }

  /// Webhooks are notified of this part of a job's steps.
  mutating func noteAnnounced(_ percent: Int, of id: String) { jobs[id]?.announcedPercent = percent }

  /// An image of which a task is offered: it keeps what its tasks are from now on.
  func imageAtWork(_ id: ImageJobID) -> Image? {
    guard let image = images[id] else { return nil }
    image.keepTasks()
    return image
  }

  /// Counts an image's prompt tokens.
  func setPromptTokens(_ count: Int, ofTask index: Int, of id: ImageJobID) {
    images[id]?.promptTokensOfTasks[index] = count
  }

  /// Images of a job as the scheduler names them.
  func imageIDs(of job: String) -> [ImageJobID] {
    (jobs[job]?.images.indices ?? 0..<0).map { ImageJobID(ImageReference(job: job, index: $0)) }
  }

  // MARK: Listening

  /// The events of an open job from now on, after those that were missed since `last`. When the stream is cancelled,
  /// `onLeave` is called with the listener's number.
  mutating func listen(to id: String, after last: String?, onLeave: @escaping @Sendable (UInt64) -> Void)
    -> AsyncStream<JobEventRecord>
  {
    let (events, continuation, listener) = makeListener(onLeave: onLeave)
    attach(continuation, as: listener, to: id, after: last)
    return events
  }

  /// A listener of no job yet, with its number.
  mutating func makeListener(onLeave: @escaping @Sendable (UInt64) -> Void) -> (
    events: AsyncStream<JobEventRecord>, continuation: AsyncStream<JobEventRecord>.Continuation, number: UInt64
  ) {
    lastListener += 1
    let listener = lastListener
    let (events, continuation) = AsyncStream<JobEventRecord>.makeStream()
    continuation.onTermination = { termination in
      if case .cancelled = termination { onLeave(listener) }
    }
    return (events, continuation, listener)
  }

  /// Sends the events of an open job to a listener, from now on and those that it has missed since `last`.
  mutating func attach(
    _ continuation: AsyncStream<JobEventRecord>.Continuation, as listener: UInt64, to id: String, after last: String?
  ) {
    jobs[id]?.attach(continuation, as: listener, after: last, epoch: epoch)
  }

  /// A listener has left. Returns whether the job has lost its last one and was to be made only while a client waits.
  mutating func leave(_ id: String, _ listener: UInt64) -> Bool {
    jobs[id]?.detach(listener)
    guard let job = jobs[id] else { return false }
    return job.listeners.isEmpty && !job.request.isDetached
  }

  /// Sends nothing more to the listeners of a job that the next run resumes.
  mutating func finishListeners(of id: String) { jobs[id]?.finishListeners() }

  // MARK: Waiting

  /// Images that a client waits for on a connection, or that would be lost with this process.
  var attachedImageCount: Int { jobs.values.reduce(0) { $0 + (isAttached($1) ? $1.openCount : 0) } }

  /// Whether a job ends with its connection or with this process.
  func isAttached(_ job: OpenJob) -> Bool { !job.request.isDetached || !isDurable }

  /// Resumed with nil when the journal has the job, or with the reason why it was rejected.
  mutating func awaitAdmission(of id: String, _ continuation: CheckedContinuation<Status?, Never>) {
    admissions[id, default: Waiters()].append(continuation)
  }

  /// Resumed when the job has ended. Returns a number for ``giveUp(_:)``.
  mutating func awaitEnd(of id: String, _ continuation: CheckedContinuation<Void, Never>) -> WaiterID? {
    guard jobs[id] != nil else {
      continuation.resume()
      return nil
    }
    return .ending(id, endings[id, default: Waiters()].append(continuation))
  }

  /// Resumed when no client waits for an image any more. Returns a number for ``giveUp(_:)``.
  mutating func awaitIdle(_ continuation: CheckedContinuation<Void, Never>) -> WaiterID? {
    guard attachedImageCount > 0 else {
      continuation.resume()
      return nil
    }
    return .idle(idle.append(continuation))
  }

  enum WaiterID: Sendable {
    case ending(String, Int)
    case idle(Int)
  }

  /// Resumes a waiter whose time is up.
  mutating func giveUp(_ waiter: WaiterID) {
    switch waiter {
    case .ending(let id, let number): endings[id]?.resume(number, returning: ())
    case .idle(let number): idle.resume(number, returning: ())
    }
  }
}

/// Continuations that are resumed together, or one by one; each exactly once. A number is never given twice.
private struct Waiters<Value: Sendable> {
  private var continuations: [Int: CheckedContinuation<Value, Never>] = [:]
  private var last = 0

  var isEmpty: Bool { continuations.isEmpty }

  @discardableResult
  mutating func append(_ continuation: CheckedContinuation<Value, Never>) -> Int {
    last += 1
    continuations[last] = continuation
    return last
  }

  /// Resumes all.
  mutating func resume(returning value: Value) {
    let all = continuations.values
    continuations = [:]
    for continuation in all { continuation.resume(returning: value) }
  }

  mutating func resume(_ number: Int, returning value: Value) {
    continuations.removeValue(forKey: number)?.resume(returning: value)
  }
}

extension ImageJobID {
  /// Every image is a job of its own to the scheduler.
  init(_ image: ImageReference) { self.init("\(image.job)-\(image.index)") }
}

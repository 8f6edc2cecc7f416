import ClusterCore
import Diffusion
import Foundation
import Kernels
import Logging
import Metrics
import ModelRegistry
import Observability
import ServiceLifecycle
import Settings
import StageRuntime
import TraceExport

/// What a stage needs to load itself.
public struct StageLoading: Sendable {
  /// The checkpoint.
  public let model: ModelDirectory
  /// What the gateway must know of it.
  public let card: ModelCard
  /// What can be chosen about a denoiser's network.
  public let predictor: PredictorOptions
  /// How the weights come into memory.
  public let weights: WeightLoading
  /// The process's compute threads.
  public let pool: ThreadPool
  /// What to compute together.
  public let batch: BatchLimits
  /// Directory with adapters; nil: none.
  public let adapterDirectory: URL?
  /// Most bytes of adapters that are kept in memory.
  public let adapterBytesMax: Int
  /// Logs what may interest the operator.
  public let note: @Sendable (String) -> Void

  /// What latents of the model look like, fitted to its encoder; nil, with a note, when there is no encoder.
  public func previewMap() -> PreviewMap? {
    do {
      let codec = try model.family.codec(of: model, pool: pool, parts: .encoder)
      if let map = PreviewMap(fitting: codec, card.latents) { return map }
      note("there will be no previews: the encoder of the VAE does not tell images apart")
    } catch {
      note("there will be no previews, for which the encoder of the VAE is needed: \(error)")
    }
    return nil
  }
}

/// A stage executable from start to end.
public enum StageProcess {
  /// The exit status for a configuration that is wrong (`EX_CONFIG`).
  private static let configurationExitStatus: Int32 = 78

  /// Reads the configuration, loads the stage and serves it until SIGTERM; never returns.
  ///
  /// - Parameters:
  ///   - program: the executable's name.
  ///   - summary: what it does, for `--help`.
  ///   - load: makes the stage; it runs on a thread of its own and may take minutes.
  public static func main(
    _ program: String, summary: String, load: @escaping @Sendable (StageLoading) throws -> any Stage
  ) async -> Never {
    do {
      let command = try await SettingCommand<StageConfiguration>.parse(
        program: program, summary: summary, arguments: Array(CommandLine.arguments.dropFirst()),
        environment: ProcessInfo.processInfo.environment)
      switch command {
      case .help(let text): print(text)
      case .checkConfiguration: print("the configuration is right")
      case .health(let configuration): checkHealth(configuration)
      case .run(let configuration): try await run(program, configuration, load)
      }
    } catch let error as SettingError {
      fail("\(program): the configuration is wrong:\n\(error)", configurationExitStatus)
    } catch {
      fail("\(program): \(error)", 1)
    }
    exit(0)
  }

  private static func run(
    _ program: String, _ configuration: StageConfiguration,
    _ load: @escaping @Sendable (StageLoading) throws -> any Stage
  ) async throws {
    bootstrapLogging(configuration.logFormat, level: configuration.logLevel)
    let logger = Logger(label: program)
    try configuration.worker().validate()
    let metrics = PrometheusRegistry()
    metrics.collectProcessStatistics()
    StageMetrics.describe(in: metrics)
    MetricsSystem.bootstrap(metrics)
    let spans = configuration.tracing.bootstrap(service: program, logger: logger)
    if let caution = InstructionSet.best.caution { logger.notice("\(caution)") }
    let pool = ThreadPool(threads: configuration.threadCount)
    var models = try ServableModels(configuration)
    var next: ModelIdentity?
    repeat {
      // The stage and its memory go with the call: there may not be enough for two.
      next = try await serveOne(&models, load, configuration, pool, (metrics, spans), logger)
    } while models.choose(next)
  }

  /// What operators see of the process.
  private typealias Watching = (metrics: PrometheusRegistry, spans: SpanExporter?)

  /// Loads a stage and serves it until SIGTERM, or until a gateway wants another model, which is returned.
  private static func serveOne(
    _ models: inout ServableModels, _ load: @escaping @Sendable (StageLoading) throws -> any Stage,
    _ configuration: StageConfiguration, _ pool: ThreadPool, _ watching: Watching, _ logger: Logger
  ) async throws -> ModelIdentity? {
    let stage = try await self.load(models.directory, configuration, pool, logger, load)
    models.loaded(stage.card)
    let worker = try worker(stage, standby: models.standbyCards, configuration, logger)
    try await serve(worker, watching, configuration, logger)
    return await worker.nextModel
  }

  /// Loads the stage of one checkpoint.
  private static func load(
    _ directory: String, _ configuration: StageConfiguration, _ pool: ThreadPool, _ logger: Logger,
    _ load: @escaping @Sendable (StageLoading) throws -> any Stage
  ) async throws -> any Stage {
    let start = ContinuousClock.now
    logger.info(
      "loading", metadata: ["model": "\(directory)", "precision": "\(configuration.precision.rawValue)"])
    let stage = try await onThread { () throws in
      let model = try ModelDirectory(URL(filePath: directory))
      let note: @Sendable (String) -> Void = { logger.notice("\($0)") }
      return try load(
        StageLoading(
          model: model, card: try model.card(), predictor: configuration.predictorOptions(of: directory),
          weights: configuration.loading(note), pool: pool, batch: configuration.batch,
          adapterDirectory: configuration.adapterDirectory.isEmpty
            ? nil : URL(filePath: configuration.adapterDirectory),
          adapterBytesMax: configuration.adapterBytesMax, note: note))
    }
    let statistics = ProcessStatistics.current()
    let loadSeconds = (ContinuousClock.now - start) / .seconds(1)
    StageMetrics.noteLoad(
      seconds: loadSeconds, precision: configuration.precision.rawValue, numericsClass: stage.numericsClass)
    logger.info(
      "loaded",
      metadata: [
        "seconds": "\(loadSeconds)", "numerics": "\(stage.numericsClass)",
        "peak_resident_bytes": "\(statistics.peakResidentBytes)",
      ])
    return stage
  }

  private static func worker(
    _ stage: any Stage, standby: [ModelCard], _ configuration: StageConfiguration, _ logger: Logger
  ) throws -> Worker {
    var worker = try configuration.worker()
    worker.logger = logger
    worker.standbyCards = standby
    if configuration.credits == 0 { worker.credits = stage.tasksAtATime }
    return Worker(stage: stage, configuration: worker)
  }

  /// Runs the worker until SIGTERM, or until it is to load another model.
  private static func serve(
    _ worker: Worker, _ watching: Watching, _ configuration: StageConfiguration, _ logger: Logger
  ) async throws {
    typealias ServiceConfiguration = ServiceGroupConfiguration.ServiceConfiguration
    // Shut down from the last to the first: the last tasks' spans are sent too.
    var services = watching.spans.map { [ServiceConfiguration(service: $0)] } ?? []
    services.append(ServiceConfiguration(service: worker, successTerminationBehavior: .gracefullyShutdownGroup))
    if let address = MetricsAddress(configuration.metricsAddress) {
      services.append(
        ServiceConfiguration(service: MetricsServer.make(watching.metrics, address: address, logger: logger)))
    }
    var group = ServiceGroupConfiguration(
      services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    group.maximumGracefulShutdownDuration = configuration.drainGrace + .seconds(30)
    try await ServiceGroup(configuration: group).run()
    // The group has left them ignored; the next model is still to be loaded, which they shall end.
    for number in [SIGTERM, SIGINT] { signal(number, SIG_DFL) }
  }

  /// Loading blocks for as long as it takes to read the weights; it must not hold a thread of the concurrency pool.
  private static func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result
  {
    try await withCheckedThrowingContinuation { continuation in
      let thread = Thread { continuation.resume(with: Swift.Result(catching: body)) }
      thread.stackSize = 8 << 20
      thread.start()
    }
  }

  private static func checkHealth(_ configuration: StageConfiguration) -> Never {
    guard !configuration.healthFile.isEmpty else { fail("--health needs worker.healthFile", configurationExitStatus) }
    let verdict = HealthFile(path: configuration.healthFile).check()
    print(verdict.message)
    exit(verdict.exitCode)
  }

  private static func fail(_ message: String, _ status: Int32) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(status)
  }
}

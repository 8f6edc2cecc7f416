import Diffusion
import Foundation
import Kernels
import Logging
import Observability
import Settings
import StageRuntime
import TraceExport
import Transport

/// Everything that can be set about a stage executable.
public struct StageConfiguration: SettingGroup {
  /// Directory of the checkpoint, in diffusers layout.
  public var modelDirectory = "/model"
  /// Directories of checkpoints that the worker loads in place of that one when there is work for them only.
  public var standbyDirectories: [String] = []
  /// Directories of control networks, which a denoiser loads beside the transformer.
  public var controlNetworks: [String] = []
  /// Whether denoisers keep keys and values of text and references for all steps, where they are the same in each.
  public var usesPrefixCache = true
  /// Most bytes of these for one image.
  public var prefixCacheBytesMax = PredictorOptions.standardPrefixCacheBytesMax
  /// Most bytes of these that are kept for later images.
  public var prefixCacheKeptBytesMax = PredictorOptions.standardPrefixCacheKeptBytesMax
  /// Directory with adapters that requests may name, for denoisers; empty: none.
  public var adapterDirectory = ""
  /// Most bytes of adapters that are kept in memory, ready for the next image.
  public var adapterBytesMax = 2 << 30
  /// Arithmetic of the models.
  public var precision = PrecisionChoice.auto
  /// Where packed weights are kept: `auto`, `none` or a directory.
  public var weightCache = "auto"
  /// Whether cached weights are checked byte by byte.
  public var verifiesWeightCache = false
  /// Bytes of mapped weights that stay in memory; 0: as many as fit.
  public var residentWeightBytes = 0
  /// Compute threads; 0 takes all processors.
  public var threads = 0
  /// The gateways to serve.
  public var gateways = ["tcp://127.0.0.1:5555"]
  /// This worker's CURVE key pair; empty: no encryption.
  public var secretKeyFile = ""
  /// The gateways' CURVE public key.
  public var gatewayKeyFile = ""
  /// Whether to talk to gateways on other machines without encryption.
  public var allowsPlaintext = false
  /// Tasks at a time; 0: as many as the stage computes together.
  public var credits = 0
  /// What the stage computes together, if it can.
  public var batch = BatchLimits(maxItems: 8, maxWeight: 1024, wait: .milliseconds(3))
  /// How long running tasks may continue after SIGTERM.
  public var drainGrace = Duration.seconds(30)
  /// How often the addresses of gateways' names are looked at.
  public var resolveInterval = Duration.seconds(10)
  /// How long tasks of a lost gateway are kept for it, or for the one that takes its jobs over.
  public var orphanTimeout = Duration.seconds(60)
  /// Where `--health` finds the worker's state.
  public var healthFile = ""
  /// Where Prometheus finds the metrics, HOST:PORT; empty: nowhere.
  public var metricsAddress = ""
  /// Where spans go.
  public var tracing = TracingSettings()
  /// The least important level that is logged.
  public var logLevel = Logger.Level.info
  /// How log lines look.
  public var logFormat = LogFormat.json

  /// Most directories in `standbyDirectories`.
  private static let standbyMax = 16

  /// The defaults.
  public init() {}

  /// Reads what only denoisers use.
  private mutating func readDenoiser(_ reader: inout SettingReader) async {
    controlNetworks = await reader.list(
      "model.controlNetworks", controlNetworks,
      "directories of control networks in diffusers layout, separated by commas, for denoisers")
    usesPrefixCache = await reader.flag(
      "denoiser.prefixCache", usesPrefixCache,
      "keep keys and values of text and references for all steps, of models where they are the same in each")
    prefixCacheBytesMax = await reader.integer(
      "denoiser.prefixCacheBytesMax", prefixCacheBytesMax, in: 0...(1 << 50),
      "most bytes of these for one image; images that need more are refused")
    prefixCacheKeptBytesMax = await reader.integer(
      "denoiser.prefixCacheKeptBytesMax", prefixCacheKeptBytesMax, in: 0...(1 << 50),
      "most bytes of these that are kept for later images of the same prompt and references")
    adapterDirectory = await reader.text(
      "adapters.directory", adapterDirectory,
      "directory with adapters (LoRA, LoHa, LoKr) that requests may name, NAME.safetensors, for denoisers; empty: none")
    adapterBytesMax = await reader.integer(
      "adapters.bytesMax", adapterBytesMax, in: 0...(1 << 50),
      "most bytes of adapters that are kept in memory, ready for the next image")
  }

  private mutating func readGateways(_ reader: inout SettingReader) async {
    gateways = await reader.list(
      "worker.gateways", gateways,
      "the gateways to serve: tcp://HOST:PORT or ipc://PATH, separated by commas; "
        + "a name with several addresses is one gateway at each")
    resolveInterval = await reader.seconds(
      "worker.resolveSeconds", resolveInterval, in: 1...3600,
      "how often the addresses of gateways' names are looked at, besides when a gateway is lost")
    orphanTimeout = await reader.seconds(
      "worker.orphanTimeoutSeconds", orphanTimeout, in: 0...86_400,
      "how long tasks of a lost gateway are kept, beyond its lease, for it or for one that takes its jobs over")
    secretKeyFile = await reader.text("worker.secretKeyFile", secretKeyFile, "file with this worker's CURVE key pair")
    gatewayKeyFile = await reader.text(
      "worker.gatewayKeyFile", gatewayKeyFile, "file with the gateways' CURVE public key")
    allowsPlaintext = await reader.flag(
      "worker.allowPlaintext", allowsPlaintext, "talk to gateways on other machines without encryption")
  }

  /// Reads every setting; what is wrong is collected in `reader`.
  public mutating func read(_ reader: inout SettingReader) async {
    modelDirectory = await reader.text("model.directory", modelDirectory, "checkpoint in diffusers layout")
    standbyDirectories = await reader.list(
      "model.standbyDirectories", standbyDirectories,
      "checkpoints that the worker loads in place of model.directory when there is work for them, separated by commas")
    await readDenoiser(&reader)
    precision = await reader.choice(
      "compute.precision", precision,
      "arithmetic of the models; auto: as the checkpoint is packed or quantised, else bf16, "
        + "or int8 on a processor with instructions for it but none for bf16")
    weightCache = await reader.text(
      "model.weightCache", weightCache,
      "where packed weights are kept: a directory, none, or auto: beside a large model")
    verifiesWeightCache = await reader.flag(
      "model.verifyWeightCache", verifiesWeightCache, "check cached weights byte by byte at start")
    residentWeightBytes = await reader.integer(
      "model.residentWeightBytes", residentWeightBytes, in: 0...(1 << 50),
      "bytes of packed weights that stay in memory, the others are read in every pass; 0: as many as fit"
    )
    threads = await reader.integer(
      "compute.threads", threads, in: 0...4096, "compute threads; 0: one per processor that the worker may use")
    await readGateways(&reader)
    credits = await reader.integer(
      "worker.credits", credits, in: 0...1024, "tasks at a time; 0: as many as the stage computes together")
    batch.maxItems = await reader.integer(
      "batch.maxTasks", batch.maxItems, in: 1...1024, "tasks computed together, at most")
    batch.maxWeight = await reader.integer(
      "batch.maxTokens", batch.maxWeight, in: 1...1_000_000, "tokens of tasks computed together, at most")
    batch.wait = await reader.seconds(
      "batch.waitSeconds", batch.wait, in: 0...10, "how long a task waits for others to be computed with")
    drainGrace = await reader.seconds(
      "worker.drainGraceSeconds", drainGrace, in: 0...86_400, "how long running tasks may continue after SIGTERM")
    healthFile = await reader.text("worker.healthFile", healthFile, "where --health finds the worker's state")
    metricsAddress = await reader.text(
      "metrics.address", metricsAddress, "HOST:PORT of GET /metrics for Prometheus; empty: none")
    await tracing.read(&reader)
    logLevel = await reader.choice("log.level", logLevel, "the least important level that is logged")
    logFormat = await reader.choice("log.format", logFormat, "how log lines look")
    if secretKeyFile.isEmpty != gatewayKeyFile.isEmpty {
      reader.complain("worker.secretKeyFile and worker.gatewayKeyFile go together")
    }
    if !metricsAddress.isEmpty, MetricsAddress(metricsAddress) == nil {
      reader.complain("metrics.address is \"\(metricsAddress.prefix(80))\", but must be HOST:PORT")
    }
    if Set([modelDirectory] + standbyDirectories).count <= standbyDirectories.count {
      reader.complain("model.standbyDirectories names a directory twice, or that of model.directory")
    }
    if standbyDirectories.count > Self.standbyMax {
      reader.complain(
        "model.standbyDirectories names \(standbyDirectories.count) directories; the limit is \(Self.standbyMax)")
    }
    if gateways.isEmpty { reader.complain("worker.gateways is empty: there would be no gateway to serve") }
    if gateways.count > WorkerConfiguration.maxLinks {
      reader.complain(
        "worker.gateways has \(gateways.count) addresses; the limit is \(WorkerConfiguration.maxLinks)")
    }
  }

  /// Compute threads to start.
  public var threadCount: Int { threads == 0 ? AvailableProcessors.current.threadCount : threads }

  /// What a denoiser's network is loaded with; control networks belong to `modelDirectory`.
  func predictorOptions(of directory: String) -> PredictorOptions {
    PredictorOptions(
      controlNetworks: directory == modelDirectory ? controlNetworks.map { URL(filePath: $0) } : [],
      usesPrefixCache: usesPrefixCache,
      prefixCacheBytesMax: prefixCacheBytesMax, prefixCacheKeptBytesMax: prefixCacheKeptBytesMax)
  }

  /// How the weights come into memory; `report` gets a sentence about each step.
  public func loading(_ report: @escaping @Sendable (String) -> Void) -> WeightLoading {
    WeightLoading(
      precision: precision, cache: .init(weightCache), verifiesCache: verifiesWeightCache,
      residentMax: residentWeightBytes == 0 ? nil : residentWeightBytes, report: report)
  }

  /// How the worker is to be run.
  public func worker() throws(TransportError) -> WorkerConfiguration {
    let security: DealerSecurity =
      secretKeyFile.isEmpty
      ? .plaintext(allowRemote: allowsPlaintext)
      : .curve(try CurveKeyPair(contentsOf: secretKeyFile), server: try CurvePublicKey(contentsOf: gatewayKeyFile))
    var worker = WorkerConfiguration(gateways: gateways, security: security)
    if credits > 0 { worker.credits = credits }
    worker.softwareVersion = SoftwareVersion.current
    worker.drainGraceMs = Int(drainGrace / .milliseconds(1))
    worker.resolveIntervalMs = Int(resolveInterval / .milliseconds(1))
    worker.orphanTimeoutMs = Int(orphanTimeout / .milliseconds(1))
    worker.healthFile = healthFile.isEmpty ? nil : healthFile
    return worker
  }
}

import ClusterCore
import Foundation
import Gateway
import GatewayDispatch
import GatewayPipelines
import HTTPTesting
import HTTPTypes
import Hummingbird
import ImageCodec
import NIOCore
import Scheduling
import StrictJSON
import TensorCore
import Testing
import Wire

@Suite("Previews", .timeLimit(.minutes(2)))
struct PreviewTests {
  /// Workers of every stage, of which the decoder knows what latents look like.
  private static func join(_ cluster: ToyCluster, card: ModelCard = Toy.card, stepTime: Duration = .milliseconds(5))
    async throws
  {
    try await cluster.join(.textEncoder, card: card, credits: 4)
    try await cluster.join(.vaeEncoder, card: card, credits: 4)
    try await cluster.join(.denoiser, card: card, stepTime: stepTime)
    try await cluster.join(.vaeDecoder, card: card, credits: 4, registrationTensors: [Toy.previewMap])
    try await cluster.waitUntilReady()
    try await wait("all have joined") { await cluster.dispatcher.status.workers.count == 4 }
  }

  private static func image(_ event: JSON) throws -> RasterImage {
    let file = try #require(event["b64_json"]?.text.flatMap { Data(base64Encoded: $0) })
    return try ImageFile.decode(Array(file)).converted(toChannels: 3)
  }

  @Test(arguments: [("png", 0), ("webp", 1), ("jpeg", 2), ("png", 3)])
  func partialImagesAreSpreadOverTheSteps(format: String, count: Int) async throws {
    try await ToyCluster.run { cluster in
      try await Self.join(cluster)
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(
          #"{"prompt":"a","seed":5,"steps":8,"n":2,"stream":true,"partial_images":\#(count),"#
            + #""output_format":"\#(format)","size":"128x64"}"#)
        let events = try APITests.events(String(buffer: response.body))
        for index in 0..<2 {
          let own = events.filter { $0.data["image_index"]?.integer == index }
          let partial = own.filter { $0.name == "image_generation.partial_image" }.map(\.data)
          #expect(own.last?.name == "image_generation.completed")
          // On a busy machine one may stand for several.
          #expect(partial.count <= count && partial.isEmpty == (count == 0))
          #expect(partial.compactMap { $0["partial_image_index"]?.integer } == Array(0..<partial.count))
          let steps = partial.compactMap { $0["step"]?.integer }
          #expect(steps == Array(Set(steps)).sorted())
          for (number, event) in partial.enumerated() {
            let step = try #require(event["step"]?.integer)
            #expect(step * (count + 1) >= (number + 1) * 8 && step <= 8, "number \(number) after step \(step)")
            #expect(event["output_format"]?.text == format && event["size"]?.text == "128x64")
            let image = try Self.image(event)
            #expect(image.width == 128 && image.height == 64)
            #expect(image.pixels.allSatisfy { abs(Int($0) - step * 10) <= 1 }, "after step \(step)")
          }
        }
      }
    }
  }

  /// They say of their origin what results say.
  @Test(arguments: ["png", "webp", "jpeg"]) func theirFilesNameTheirSourceType(format: String) async throws {
    for namesSourceType in [true, false] {
      try await ToyCluster.run(provenance: ResultProvenance(namesSourceType: namesSourceType)) { cluster in
        try await Self.join(cluster)
        let spec = try GenerationRequest(
          body: Array(#"{"prompt":"a","steps":8,"output_format":"\#(format)"}"#.utf8), maxPromptBytes: 1000)
        let images = try ImageSpec.images(of: spec, card: Toy.card, randomSeed: 1).images
        let ticket = try await cluster.dispatcher.submit(JobRequest(images))
        var previews: [Preview] = []
        for await event in ticket.events {
          if case .previewed(let newest) = event.update, let preview = newest.preview { previews.append(preview) }
        }
        let file = try await #require(previews.first).file(as: images[0].encoding, of: images[0].size)
        let text = String(decoding: file, as: Unicode.ASCII.self)
        #expect(text.contains("digitalsourcetype/trainedAlgorithmicMedia") == namesSourceType)
        #expect(try ImageFile.decode(file).width == 64)
      }
    }
  }

  /// Event names are those of the route, as OpenAI's client expects them.
  @Test func editsHaveEventsOfTheirOwn() async throws {
    try await ToyCluster.run { cluster in
      try await Self.join(cluster, card: Intake.imageToImageCard)
      try await cluster.app().test(.live) { client in
        let body =
          #"{"prompt":"a","steps":4,"strength":1,"stream":true,"partial_images":1,"image":"#
          + #""\#(Intake.dataURL(try Intake.png()))"}"#
        for (route, prefix) in [("edits", "image_edit"), ("variations", "image_generation")] {
          let response = try await client.execute(
            uri: "/v1/images/\(route)", method: .post, headers: JobsTests.json, body: ByteBuffer(string: body))
          let names = try APITests.events(String(buffer: response.body)).map(\.name)
          #expect(Set(names) == ["\(prefix).progress", "\(prefix).partial_image", "\(prefix).completed"])
          #expect(names.count { $0 == "\(prefix).partial_image" } == 1 && names.last == "\(prefix).completed")
        }
      }
    }
  }

  @Test func withoutAMapThereAreNone() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let response = try await client.generate(#"{"prompt":"a","stream":true,"partial_images":3}"#)
        let names = Set(try APITests.events(String(buffer: response.body)).map(\.name))
        #expect(names == ["image_generation.progress", "image_generation.completed"])
      }
    }
  }

  @Test func jobsShowTheNewestPreview() async throws {
    try await ToyCluster.run { cluster in
      try await Self.join(cluster, stepTime: .milliseconds(30))
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"a","steps":20}"#).json["id"]?.text)
        let address = "/v1/jobs/\(id)/preview"
        try await wait("there is a preview") {
          try await client.execute(uri: address, method: .get).status == .ok
        }
        let found = try await client.execute(uri: "\(address)?index=0", method: .get)
        #expect(found.headers[.contentType] == "image/jpeg" && found.headers[.cacheControl] == "no-store")
        let image = try ImageFile.decode(Array(buffer: found.body))
        #expect(image.width == 64 && image.height == 64)
        let events = try await client.execute(uri: "/v1/jobs/\(id)/events?previews=true", method: .get)
        let shown = try JobsTests.events(String(buffer: events.body)).filter { $0.name == "job.preview" }.map(\.data)
        let steps = shown.compactMap { $0["step"]?.integer }
        #expect(steps == Array(Set(steps)).sorted() && steps.count > 1, "\(steps)")
        for event in shown {
          let step = try #require(event["step"]?.integer)
          #expect(try Self.image(event).pixels.allSatisfy { abs(Int($0) - step * 10) <= 3 })
        }
        let late = try await client.execute(uri: address, method: .get)
        #expect(late.status == .notFound)
        let silent = try await client.execute(uri: "/v1/jobs/\(id)/events", method: .get)
        #expect(!String(buffer: silent.body).contains("job.preview"))
        for query in ["preview?index=1", "preview?x=1", "events?previews=maybe"] {
          let answer = try await client.execute(uri: "/v1/jobs/\(id)/\(query)", method: .get)
          #expect(answer.status == .badRequest, "\(query)")
        }
      }
    }
  }

  @Test func progressOfTheWebUIShowsThem() async throws {
    try await ToyCluster.run { cluster in
      try await Self.join(cluster, stepTime: .milliseconds(50))
      try await cluster.app().test(.live) { client in
        async let answer = client.webUI("txt2img", #"{"prompt":"p","seed":1,"steps":40,"width":64,"height":64}"#)
        try await wait("there is a preview") {
          let progress = try await client.get("/sdapi/v1/progress").json
          guard let text = progress["current_image"]?.text else { return false }
          let image = try ImageFile.decode(Array(try #require(Data(base64Encoded: text))))
          #expect(image.width == 64 && image.height == 64)
          return true
        }
        let skipped = try await client.get("/sdapi/v1/progress?skip_current_image=true").json
        #expect(skipped["current_image"] == .null && skipped["state"]?["job_count"]?.integer == 1)
        #expect(try await answer.status == .ok)
      }
    }
  }

  /// What a denoiser calls a preview may be anything: the image is made all the same.
  @Test func previewsOfAnotherShapeAreLeftOut() async throws {
    let odd = WireTensor(
      name: TensorName.preview, dtype: .uint8, shape: [3], bytes: FrameBuffer(copying: [UInt8](1...3)))
    try await ToyCluster.run { cluster in
      try await cluster.join(.textEncoder, credits: 4)
      let denoiser = try await cluster.join(.denoiser, stepTime: .seconds(3600))
      try await cluster.join(.vaeDecoder, credits: 4, registrationTensors: [Toy.previewMap])
      try await cluster.waitUntilReady()
      try await cluster.app().test(.live) { client in
        let id = try #require(try await client.submit(#"{"prompt":"a"}"#).json["id"]?.text)
        try await wait("the denoiser has it") { await !denoiser.log.tasks.isEmpty }
        let task = try #require(await denoiser.log.tasks.first)
        await denoiser.send(
          .progress(Progress(completedSteps: 1, steps: 4, stepSeconds: 1)), task: task, tensors: [odd])
        try await wait("the step counts") { try await client.get("/v1/jobs/\(id)").json["step"]?.integer == 1 }
        #expect(try await client.execute(uri: "/v1/jobs/\(id)/preview", method: .get).status == .notFound)
        #expect(try await client.get("/v1/jobs/\(id)").json["status"]?.text == "running")
      }
    }
  }

  @Test func aDecoderWithAnotherMapIsRefused() async throws {
    try await ToyCluster.run { cluster in
      for (shape, value) in [([4, 1, 1, 3], Float(0)), ([5, 1, 2, 3], 0), ([5, 9, 9, 3], 0), ([5, 1, 1, 3], .nan)] {
        let map = WireTensor(
          name: TensorName.previewMap, dtype: .fp32, shape: shape,
          bytes: FrameBuffer(copying: [Float](repeating: value, count: shape.reduce(1, *))))
        let status = try await WorkerSessionTests.status(
          try await cluster.join(.vaeDecoder, registrationTensors: [map]))
        #expect(status.code == .invalidArgument && status.field == TensorName.previewMap)
      }
    }
  }
}

import ClusterCore
import Gateway
import GatewayAPI
import GatewayPipelines
import Testing
import Wire

@Suite("Requests for images")
struct ImageRequestTests {
  static func request(_ body: String) throws(APIError) -> GenerationRequest {
    try GenerationRequest(body: Array(body.utf8), maxPromptBytes: 65_536)
  }

  static func jobs(_ body: String) throws(APIError) -> [ImageSpec] {
    try ImageSpec.images(of: request(body), card: Toy.card, randomSeed: 77).images
  }

  @Test func silentRequestsGetTheModelsDefaults() throws {
    let jobs = try Self.jobs(#"{"prompt":"a cat"}"#)
    #expect(jobs.count == 1)
    let job = try #require(jobs.first)
    #expect(job.size == Toy.card.defaults.size)
    #expect(job.steps == Toy.card.defaults.steps)
    #expect(job.trueCFGScale == Toy.card.defaults.trueCFGScale)
    #expect(job.negativePrompt == nil)
    #expect(job.seed == 77)
  }

  @Test func takesWhatTheOpenAIClientSends() throws {
    let request = try Self.request(
      """
      {
        "prompt": "p", "model": "toy", "n": 2, "size": "128x64", "response_format": "b64_json",
        "output_format": "png", "quality": "auto", "style": "vivid", "user": "u", "background": "opaque",
        "moderation": "low", "output_compression": 100, "partial_images": 3, "stream": true,
        "safety_identifier": null
      }
      """)
    #expect(request.imageCount == 2)
    #expect(request.size.map { [$0.width, $0.height] } == [128, 64])
    #expect(request.isStreamed && request.partialImageCount == 3)
  }

  /// What clients send for fields that were left empty in a form, and null for those that they do not know.
  @Test func emptyTextsAndNullsCountAsAbsent() throws {
    let fields = [
      "model", "size", "response_format", "output_format", "background", "quality", "style", "moderation", "user",
      "priority",
    ]
    for value in [#""""#, "null"] {
      let body = fields.map { #""\#($0)":\#(value)"# }.joined(separator: ",")
      let request = try Self.request(#"{"prompt":"p","n":null,"seed":null,"steps":null,"stream":null,\#(body)}"#)
      #expect(request == (try Self.request(#"{"prompt":"p"}"#)))
    }
    #expect(
      try Self.jobs(#"{"prompt":"p","size":"auto","quality":"auto","background":"auto","n":1}"#).map(\.size) == [
        Toy.card.defaults.size
      ])
    // An empty negative prompt is one.
    #expect(try Self.request(#"{"prompt":"p","negative_prompt":""}"#).negativePrompt == "")
  }

  /// The same in a form, where every other field that was left empty is absent.
  @Test func emptyPromptsInFormsAreTexts() throws {
    func request(_ fields: [(String, String)]) throws -> GenerationRequest {
      let parts = fields.map { MultipartForm.Part(name: $0, bytes: Array($1.utf8)[...]) }
      return try GenerationRequest(form: MultipartForm(parts: parts), maxPromptBytes: 100)
    }
    let read = try request([("prompt", "p"), ("negative_prompt", ""), ("seed", ""), ("model", "")])
    #expect(read.negativePrompt == "" && read.seed == nil && read.model == nil)
    #expect(try request([("prompt", "p")]).negativePrompt == nil)
    let error = #expect(throws: APIError.self) { try request([("prompt", "")]) }
    #expect(error?.message == "prompt is empty")
  }

  /// As in OpenAI's API: an address unless asked otherwise of those models whose programs rely on it.
  @Test(
    arguments: [
      (#"{"prompt":"p"}"#, .base64), (#"{"prompt":"p","response_format":"url"}"#, .url),
      (#"{"prompt":"p","response_format":null,"model":"dall-e-3"}"#, .url),
      (#"{"prompt":"p","model":"dall-e-2"}"#, .url),
      (#"{"prompt":"p","response_format":"b64_json","model":"dall-e-3"}"#, .base64),
      (#"{"prompt":"p","model":"gpt-image-1"}"#, .base64),
      (#"{"prompt":"p","model":"my-dall-e-3"}"#, .base64),
    ] as [(String, GenerationRequest.ResultFormat)])
  func answersHaveTheFormThatIsAskedFor(body: String, format: GenerationRequest.ResultFormat) throws {
    #expect(try Self.request(body).resultFormat == format)
  }

  @Test func seedsAreExactAndConsecutive() throws {
    #expect(
      try Self.jobs(#"{"prompt":"p","seed":9007199254740993,"n":3}"#).map(\.seed) == [
        9_007_199_254_740_993, 9_007_199_254_740_994, 9_007_199_254_740_995,
      ])
    #expect(try Self.jobs(#"{"prompt":"p","seed":9223372036854775807}"#).map(\.seed) == [9_223_372_036_854_775_807])
    #expect(try Self.jobs(#"{"prompt":"p","seed":0}"#).map(\.seed) == [0])
  }

  @Test func bothNamesOfStepsAndBothFormsOfSizesMeanTheSame() throws {
    for body in [#""steps":7"#, #""num_inference_steps":7"#, #""steps":7,"num_inference_steps":7"#] {
      #expect(try Self.jobs(#"{"prompt":"p",\#(body)}"#).map(\.steps) == [7])
    }
    for body in [
      #""size":"128x64""#, #""width":128,"height":64"#, #""size":"128x64","width":128,"height":64"#,
      #""size":"auto","width":128,"height":64"#,
    ] {
      #expect(try Self.jobs(#"{"prompt":"p",\#(body)}"#).map(\.size) == [ImageSize(widthPx: 128, heightPx: 64)])
    }
  }

  /// As in the reference: guidance acts with a scale above 1 and a negative prompt, even an empty one.
  @Test(
    arguments: [
      (#"{"prompt":"p"}"#, nil), (#"{"prompt":"p","negative_prompt":""}"#, ""),
      (#"{"prompt":"p","negative_prompt":"x"}"#, "x"),
      (#"{"prompt":"p","negative_prompt":"x","true_cfg_scale":1}"#, nil),
      (#"{"prompt":"p","negative_prompt":"x","true_cfg_scale":1.5}"#, "x"),
      (#"{"prompt":"p","negative_prompt":null}"#, nil),
    ] as [(String, String?)])
  func guidanceNeedsScaleAndNegativePrompt(body: String, negativePrompt: String?) throws {
    #expect(try Self.jobs(body).first?.negativePrompt == negativePrompt)
  }

  struct Bad: CustomTestStringConvertible {
    var body: String
    var code: APIError.Code
    var param: String?
    var testDescription: String { body.count > 80 ? "\(body.prefix(80))…" : body }

    init(_ body: String, _ code: APIError.Code, _ param: String?) {
      self.body = body
      self.code = code
      self.param = param
    }
  }

  @Test(arguments: [
    Bad("", .invalidJSON, nil), Bad("{", .invalidJSON, nil), Bad("[]", .invalidType, nil), Bad("3", .invalidType, nil),
    Bad(#"{"prompt":"p","prompt":"q"}"#, .invalidJSON, nil),
    Bad(#"{}"#, .missingField, "prompt"), Bad(#"{"prompt":null}"#, .missingField, "prompt"),
    Bad(#"{"prompt":""}"#, .invalidValue, "prompt"),
    Bad(#"{"prompt":3}"#, .invalidType, "prompt"), Bad(#"{"prompt":["p"]}"#, .invalidType, "prompt"),
    Bad(#"{"prompt":"a\u0000b"}"#, .invalidValue, "prompt"),
    Bad(#"{"prompt":"p","negative_prompt":1}"#, .invalidType, "negative_prompt"),
    Bad(#"{"prompt":"\#(String(repeating: "x", count: 1001))"}"#, .promptTooLong, "prompt"),
    Bad(
      #"{"prompt":"p","negative_prompt":"\#(String(repeating: "x", count: 1001))"}"#, .promptTooLong,
      "negative_prompt"),
    Bad(#"{"prompt":"\#(String(repeating: "x", count: 65_537))"}"#, .promptTooLong, "prompt"),
    Bad(
      #"{"prompt":"p","negative_prompt":"\#(String(repeating: "x", count: 65_537))"}"#, .promptTooLong,
      "negative_prompt"),
    Bad(#"{"prompt":"p","size":"100000x10000"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":" "}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"999999999999999984x999999999999999984"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"99999999999999999999x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","promt":"q"}"#, .unknownField, "promt"), Bad(#"{"prompt":"p","cfg":4}"#, .unknownField, "cfg"),
    Bad(#"{"prompt":"p","n":0}"#, .invalidValue, "n"), Bad(#"{"prompt":"p","n":11}"#, .invalidValue, "n"),
    Bad(#"{"prompt":"p","n":"2"}"#, .invalidType, "n"),
    Bad(#"{"prompt":"p","n":1.0}"#, .invalidType, "n"), Bad(#"{"prompt":"p","n":true}"#, .invalidType, "n"),
    Bad(#"{"prompt":"p","steps":0}"#, .invalidValue, "steps"),
    Bad(#"{"prompt":"p","steps":-1}"#, .invalidValue, "steps"),
    Bad(#"{"prompt":"p","steps":51}"#, .invalidValue, "steps"),
    Bad(#"{"prompt":"p","num_inference_steps":1e2}"#, .invalidType, "num_inference_steps"),
    Bad(#"{"prompt":"p","steps":3,"num_inference_steps":4}"#, .invalidValue, "steps"),
    Bad(#"{"prompt":"p","true_cfg_scale":NaN}"#, .invalidJSON, nil),
    Bad(#"{"prompt":"p","true_cfg_scale":Infinity}"#, .invalidJSON, nil),
    Bad(#"{"prompt":"p","true_cfg_scale":"NaN"}"#, .invalidType, "true_cfg_scale"),
    Bad(#"{"prompt":"p","true_cfg_scale":1e999}"#, .invalidValue, "true_cfg_scale"),
    Bad(#"{"prompt":"p","true_cfg_scale":-1}"#, .invalidValue, "true_cfg_scale"),
    Bad(#"{"prompt":"p","true_cfg_scale":101}"#, .invalidValue, "true_cfg_scale"),
    Bad(#"{"prompt":"p","seed":-1}"#, .invalidValue, "seed"),
    Bad(#"{"prompt":"p","seed":9223372036854775808}"#, .invalidValue, "seed"),
    Bad(#"{"prompt":"p","seed":1.5}"#, .invalidType, "seed"), Bad(#"{"prompt":"p","seed":"1"}"#, .invalidType, "seed"),
    Bad(#"{"prompt":"p","seed":9223372036854775807,"n":2}"#, .invalidValue, "seed"),
    Bad(#"{"prompt":"p","size":"big"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"64x64x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"-64x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"064x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"64X64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"999999999999x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"６４x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":64}"#, .invalidType, "size"),
    Bad(#"{"prompt":"p","size":"72x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"32x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"512x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"256x256"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","size":"0x64"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","width":65,"height":64}"#, .invalidValue, "width"),
    Bad(#"{"prompt":"p","width":64,"height":512}"#, .invalidValue, "height"),
    Bad(#"{"prompt":"p","num_inference_steps":51}"#, .invalidValue, "num_inference_steps"),
    Bad(#"{"prompt":"p","width":64}"#, .missingField, "height"),
    Bad(#"{"prompt":"p","height":64}"#, .missingField, "width"),
    Bad(#"{"prompt":"p","width":64.0,"height":64}"#, .invalidType, "width"),
    Bad(#"{"prompt":"p","width":64,"height":64,"size":"64x80"}"#, .invalidValue, "size"),
    Bad(#"{"prompt":"p","response_format":"x"}"#, .invalidValue, "response_format"),
    Bad(#"{"prompt":"p","output_format":"gif"}"#, .unsupportedValue, "output_format"),
    Bad(#"{"prompt":"p","output_format":"bmp"}"#, .invalidValue, "output_format"),
    Bad(#"{"prompt":"p","output_format":"jpeg","background":"transparent"}"#, .invalidValue, "background"),
    Bad(#"{"prompt":"p","output_format":"webp","output_compression":101}"#, .invalidValue, "output_compression"),
    Bad(#"{"prompt":"p","output_format":"png","output_compression":99}"#, .invalidValue, "output_compression"),
    Bad(#"{"prompt":"p","background":"transparent"}"#, .unsupportedValue, "background"),
    Bad(#"{"prompt":"p","quality":"best"}"#, .invalidValue, "quality"),
    Bad(#"{"prompt":"p","style":"noir"}"#, .invalidValue, "style"),
    Bad(#"{"prompt":"p","moderation":"off"}"#, .invalidValue, "moderation"),
    Bad(#"{"prompt":"p","output_compression":50}"#, .invalidValue, "output_compression"),
    Bad(#"{"prompt":"p","partial_images":-1}"#, .invalidValue, "partial_images"),
    Bad(#"{"prompt":"p","partial_images":4}"#, .invalidValue, "partial_images"),
    Bad(#"{"prompt":"p","frame_count":3}"#, .unsupportedValue, "frame_count"),
    Bad(#"{"prompt":"p","svg":{"model":"m"}}"#, .unsupportedValue, "svg"),
    Bad(#"{"prompt":"p","stream":"yes"}"#, .invalidType, "stream"),
    Bad(#"{"prompt":"p","stream":1}"#, .invalidType, "stream"),
    Bad(#"{"prompt":"p","user":7}"#, .invalidType, "user"),
    Bad(#"{"prompt":"p","user":"\#(String(repeating: "x", count: 513))"}"#, .invalidValue, "user"),
    Bad(
      #"{"prompt":"p","x":\#(String(repeating: "[", count: 40))\#(String(repeating: "]", count: 40))}"#, .invalidJSON,
      nil),
  ])
  func refuses(bad: Bad) {
    do throws(APIError) {
      _ = try Self.jobs(bad.body)
      Issue.record("accepted")
    } catch {
      #expect(error.code == bad.code, "\(error)")
      #expect(error.param == bad.param, "\(error)")
      #expect(!error.message.isEmpty)
    }
  }

  @Test func messagesNameValueAndLimit() {
    #expect(throws: APIError(.invalidValue, "steps is 51, but must be from 1 to 50", param: "steps")) {
      try Self.jobs(#"{"prompt":"p","steps":51}"#)
    }
    for size in ["100000x10000", "100000x64", "64x100000"] {
      let name = size.hasPrefix("64") ? "height" : "width"
      #expect(throws: APIError(.invalidValue, "\(name) is 100000, but must be from 64 to 256", param: "size")) {
        try Self.jobs(#"{"prompt":"p","size":"\#(size)"}"#)
      }
    }
    #expect(
      throws: APIError(
        .invalidValue, "size is 256x256, which is 65536 pixels; the limit of toy/model is 49152", param: "size")
    ) {
      try Self.jobs(#"{"prompt":"p","size":"256x256"}"#)
    }
  }
}

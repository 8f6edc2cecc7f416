import ClusterCore
import Gateway
import GatewayAPI
import GatewayPipelines
import Testing

@Suite("What chat models make of prompts")
struct PromptAnswerTests {
  @Test(arguments: [
    ("a cat", "a tabby cat", "a tabby cat"),
    ("a cat", "\u{FEFF}line one\r\n\r\nline\u{0}two\u{2028}three\u{1b}[2J", "\u{FEFF}line one line two three [2J"),
    ("a cat", "\"a tabby cat\"", "a tabby cat"), ("a cat", "“a cat”", "a cat"),
    ("a cat", "\"a\" and \"b\"", "\"a\" and \"b\""),
    ("\"Hi\"", "\"Hi\"", "\"Hi\""),
    ("a cat", "<think>\nwhat\n</think>\n\n a cat ", "a cat"),
    ("a sign \"Hi  there\"", "a wooden sign that says \"Hi  there\"", "a wooden sign that says \"Hi  there\""),
    ("写着「你好」的牌子", "木牌上写着「你好」", "木牌上写着「你好」"),
    ("a 5\" pipe and a 3\" nail", "a pipe of 5 inches and a nail", "a pipe of 5 inches and a nail"),
  ]) func answersBecomePrompts(original: String, answer: String, prompt: String) throws {
    #expect(try PromptAnswer.prompt(of: answer, for: original, maxBytes: 100) == prompt)
  }

  @Test(arguments: [
    ("a cat", "", "empty"), ("a cat", " \n\u{0}", "empty"), ("a cat", "\"\"", "empty"),
    ("a cat", "<think>a cat", "empty"), ("a cat", String(repeating: "好", count: 34), "102 bytes, the limit is 100"),
    ("a sign \"Hi\"", "a sign that says hi", "lacks a text"), ("写着“你好”", "写着\"您好\"", "lacks a text"),
  ]) func othersAreRefused(original: String, answer: String, problem: String) {
    let error = #expect(throws: NoPrompt.self) {
      try PromptAnswer.prompt(of: answer, for: original, maxBytes: 100)
    }
    #expect(error?.description.contains(problem) == true, "\(String(describing: error))")
  }

  @Test func quotedTextsAreFound() {
    #expect(
      PromptAnswer.quotedTexts(in: #"“a” and "b" «c» 「d」 "" " " "e"#)
        == ["a", "b", "c", "d"])
    #expect(PromptAnswer.withoutQuotedTexts("a sign 「你好」") == "a sign 「」")
  }

  @Test(arguments: [
    ("a cat", EnhancementTemplate.description), ("一只猫", .chineseDescription),
    ("a sign that says \"你好\"", .description),
    ("牌子上写着“Hello”", .chineseDescription), ("猫の絵", .description), ("고양이 漢字", .description),
    ("ein Käfer", .description),
  ]) func theTemplateFollowsTheLanguage(prompt: String, template: EnhancementTemplate) {
    #expect(EnhancementTemplate(.description, for: prompt) == template)
    let edit: EnhancementTemplate = template == .description ? .edit : .chineseEdit
    #expect(EnhancementTemplate(.edit, for: prompt) == edit)
  }

  private static func enhancement(_ fields: String, card: ModelCard = Intake.card) throws -> (
    PromptEnhancement?, [ImageSpec]
  ) {
    let image = try Intake.dataURL(Intake.png())
    let body = #"{"enhance_prompt":true,"image":"\#(image)",\#(fields)}"#
    let request = try GenerationRequest(body: Array(body.utf8), .edit, maxPromptBytes: 1000)
    let images = try ImageSpec.images(of: request, card: card, randomSeed: 7).images
    return (try PromptEnhancement(request, images[0]), images)
  }

  @Test func editsAreInstructionsAndOthersDescriptions() throws {
    for (fields, purpose) in [
      (#""prompt":"p","pipeline":"edit""#, PromptEnhancement.Purpose.edit),
      (#""prompt":"p","strength":0.5"#, .description),
    ] {
      let (enhancement, images) = try Self.enhancement(fields)
      #expect(enhancement?.parts.map(\.purpose) == [purpose] && enhancement?.parts.map(\.prompt) == ["p"])
      var job = JobRequest(images)
      job.enhancement = enhancement
      let new = try #require(job.enhanced(with: ["q"]))
      #expect(new.images[0].prompt == "q" && new.images[0].originalPrompt == "p" && new.enhancement == nil)
      #expect(job.enhanced(with: ["p"])?.images == images, "a prompt that stays is none that was rewritten")
      #expect(job.enhanced(with: [String(repeating: "x", count: 1001)]) == nil)
      #expect(job.unenhanced.images == images && job.unenhanced.enhancement == nil)
    }
  }

  @Test func eachEditOfSeveralHasItsPrompt() throws {
    let (enhancement, images) = try Self.enhancement(
      #""prompt":"p","edit_instructions":[{"prompt":"a","pipeline":"edit"},{"strength":0.5}]"#)
    #expect(enhancement?.parts.map(\.prompt) == ["a", "p"])
    #expect(enhancement?.parts.map(\.purpose) == [.edit, .description])
    var job = JobRequest(images)
    job.enhancement = enhancement
    let image = try #require(job.enhanced(with: ["x", "y"])).images[0]
    #expect(image.prompt == "x; y" && image.originalPrompt == "a; p" && image.edits.map(\.prompt) == ["x", "y"])
    var request = JobRequest([image])
    request.tenant = .anonymous
    let restored = try StoredRequest.request(from: StoredRequest(request).encoded(), tenant: .anonymous)
    #expect(restored.images == [image])
  }

  @Test func aBackgroundIsAskedForBehindTheNewPrompt() throws {
    var card = Intake.card
    card.hasTransparency = true
    let (enhancement, images) = try Self.enhancement(
      #""prompt":"p","pipeline":"edit","background":"transparent""#, card: card)
    #expect(enhancement?.parts.map(\.prompt) == ["p"])
    var job = JobRequest(images)
    job.enhancement = enhancement
    let prompt = try #require(job.enhanced(with: ["new"])).images[0].prompt
    #expect(prompt.contains(" new. ") && prompt.hasPrefix("This is an RGBA image"))
  }

  @Test func whereThereIsNothingToRewriteItIsRefused() throws {
    let error = #expect(throws: APIError.self) { try Self.enhancement(#""prompt":" ","pipeline":"edit""#) }
    #expect(error?.param == "prompt")
    var card = Intake.card
    card.pipelines = [.layered]
    let layered = #expect(throws: APIError.self) { try Self.enhancement(#""prompt":"p""#, card: card) }
    #expect(layered?.param == "enhance_prompt" && layered?.code == .unsupportedValue)
  }
}

import StrictJSON
import Templates
import Testing

/// Templates as they are written.
@Suite("Templates") struct TemplateTests {
  static let poster = """
    name: poster
    description: |
      Two lines
      of text.
    prompt: '"{word}" in {colour} on {{{place}}}'
    negative_prompt: " "
    slots:
      word: { max_length: 7, required: true, description: What it says }
      colour: { allowed: [red, blue], default: red }
      place: { default: wall }
      photo: { kind: file, required: false }
    inputs: { image: photo }
    sizes: { banner: 384x128, square: 128x128 }
    languages:
      en:
      zh:
        prompt: '{colour}色的"{word}"，{place}'
        prefix: ""
        words: { colour: { red: 红, blue: 蓝 } }
    request: { steps: 8, true_cfg_scale: 3.5, output_format: webp, sigmas: [1.0, 0.5], paste_back: false }
    seed: { row: 100 }
    brand:
      prefix: "photo, "
      suffix: ", flat"
      colours: [crimson, ivory]
      forbidden_words: [free, 免费]
      required_words: [in]
      max_text_length: 9
    output: "{template}/{row}-{word}-{size}-{language}"
    tags: [spring]
    """

  @Test func everythingIsRead() throws {
    let template = try Template(yaml: Self.poster)
    #expect(template.name == "poster" && template.summary == "Two lines\nof text.\n" && template.tags == ["spring"])
    #expect(template.slots.map(\.name) == ["word", "colour", "place", "photo"])
    #expect(template.slots.map(\.isRequired) == [true, false, false, false])
    #expect(template.slots.map(\.standard) == [nil, "red", "wall", nil] && template.slots[0].maxLength == 7)
    #expect(template.sizes.map { "\($0.name) \($0.width) \($0.height)" } == ["banner 384 128", "square 128 128"])
    #expect(template.languages.map(\.name) == ["en", "zh"] && template.languages[1].words["colour"]?["red"] == "红")
    #expect(
      template.fields["steps"] == 8 && template.fields["sigmas"] == [1, 0.5] && template.fields["paste_back"] == false)
    #expect(template.seed == .row(base: 100) && template.brand.colours == ["crimson", "ivory"])
    #expect(template.inputs.map(\.field) == ["image"] && template.inputs[0].slots == ["photo"])
  }

  @Test func adaptersAreFieldsOfTheRequest() throws {
    let yaml = "name: a\nprompt: p\nrequest:\n  loras:\n    - { name: style, scale: 0.5 }\n    - name: poster\n"
    #expect(try Template(yaml: yaml).fields["loras"] == [["name": "style", "scale": 0.5], ["name": "poster"]])
    for list in ["style", "[style]", "[{ name: style, weight: 1 }]", "[{ name: style, scale: much }]"] {
      let error = #expect(throws: TemplateError.self) {
        try Template(yaml: "name: a\nprompt: p\nrequest: { loras: \(list) }")
      }
      #expect("\(String(describing: error))".contains("a list of mappings with name and scale"))
    }
  }

  @Test func jsonSaysTheSame() throws {
    let json = """
      {"name": "t", "prompt": "{a} {b}", "slots": {"a": {"max_length": 3, "required": true}, "b": {"default": 7}},
       "sizes": {"s": "64x64"}, "seed": 5, "request": {"steps": 4, "paste_back": true}}
      """
    let yaml = """
      name: t
      prompt: "{a} {b}"
      slots:
        a:
          max_length: 3
          required: true
        b: { default: 7 }
      sizes: { s: 64x64 }
      seed: 5
      request: { steps: 4, paste_back: true }
      """
    #expect(try Template(JSON(Array(json.utf8))) == Template(yaml: yaml))
  }

  @Test(arguments: [
    ("[a]", "line 1: it must be a mapping, not a list"), ("name: a", "line 1: prompt: it is missing"),
    ("prompt: a", "line 1: name: it is missing"), ("name: a b\nprompt: p", "line 1: name: \"a b\" is no name"),
    ("name: -a\nprompt: p", "line 1: name: \"-a\" is no name"),
    ("name: a\nprompt: p\nslot: {}", "line 3: slot: there is no such key; known keys: name, description, slots"),
    ("name: a\nprompt: '{x}'", "line 2: prompt: there is no slot \"x\" of kind text; there are: "),
    ("name: a\nprompt: 'a {'", "line 2: prompt: { is not closed"),
    ("name: a\nprompt: 'a }'", "line 2: prompt: a } has no {"),
    ("name: a\nprompt: '{a b}'", "line 2: prompt: {a b} names no slot"),
    ("name: a\nprompt: p\nslots:\n  x:", "line 3: slots: x is used nowhere"),
    ("name: a\nprompt: '{x}'\nslots:\n  x: { allow: [1] }", "line 4: slots.x.allow: there is no such key"),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { kind: image }",
      "line 4: slots.x.kind: it is \"image\", but must be text or file"
    ),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { allowed: [a], default: b }", "line 4: slots.x.default: \"b\" is none of a"
    ),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { max_length: 1, default: bb }",
      "line 4: slots.x.default: it has 2 characters"
    ),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { max_length: '3' }",
      "line 4: slots.x.max_length: it must be an integer, not a text"
    ),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { max_length: 0 }",
      "line 4: slots.x.max_length: it is 0, but must be from 1 to 4096"
    ),
    ("name: a\nprompt: '{x}'\nslots:\n  x: { required: yes }", "line 4: slots.x.required: it must be true or false"),
    (
      "name: a\nprompt: '{x}'\nslots:\n  x: { required: true, default: a }",
      "line 4: slots.x.default: a required slot has none"
    ),
    ("name: a\nprompt: '{row}'\nslots:\n  row:", "line 4: slots.row: names of files use"),
    ("name: a\nprompt: p\nsizes: { s: 64 }", "line 3: sizes.s: it must be WIDTHxHEIGHT"),
    ("name: a\nprompt: p\nsizes: { s: 0x64 }", "line 3: sizes.s: it must be WIDTHxHEIGHT"),
    (
      "name: a\nprompt: p\nrequest: { prompt: x }",
      "line 3: request.prompt: there is no such key; known keys: model, pipeline"
    ),
    ("name: a\nprompt: p\nrequest: { steps: many }", "line 3: request.steps: it must be an integer"),
    ("name: a\nprompt: p\nrequest: { true_cfg_scale: inf }", "line 3: request.true_cfg_scale: it must be a number"),
    ("name: a\nprompt: p\nseed: -1", "line 3: seed: it is -1, but must be from 0"),
    ("name: a\nprompt: p\nseed: { base: 1 }", "line 3: seed: it must be a number, row, or a mapping"),
    ("name: a\nprompt: p\ninputs: { image: x }", "line 3: inputs.image: there is no slot \"x\" of kind file"),
    (
      "name: a\nprompt: p\nlanguages: { de: { prompt: '{x}' } }",
      "line 3: languages: languages.de.prompt: there is no slot"
    ),
    ("name: a\nlanguages: { de: {} }", "line 2: languages: de has no prompt"),
    ("name: a\nprompt: p\nbrand: { required_words: [a, a] }", "line 3: brand.required_words: \"a\" comes twice"),
    ("name: a\nprompt: p\noutput: ../x", "line 3: output: \"../x\" has more than letters"),
    ("name: a\nprompt: p\noutput: /x", "line 3: output: a folder or file has an empty name"),
    ("name: a\nprompt: p\noutput: a//{row}", "line 3: output: a folder or file has an empty name"),
    (
      "name: a\nprompt: p\noutput: '{y}'",
      "line 3: output: there is no slot \"y\" of kind text; names may have language"
    ),
  ])
  func mistakesAreNamedByLineAndMember(yaml: String, reason: String) {
    let error = #expect(throws: TemplateError.self) { try Template(yaml: yaml) }
    #expect(error?.description.hasPrefix(reason) == true, "\(error?.description ?? "none")")
  }
}

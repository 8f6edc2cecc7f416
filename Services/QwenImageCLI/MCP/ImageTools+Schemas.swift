import ClusterCore
import MCP
import StrictJSON

extension ImageTools {
  /// The tools.
  static let all: [Tool] = [
    Tool(
      name: "generate_image", title: "Generate images",
      description: "Makes images of a text. Answers with the images, their seeds and the id of the job, by which they "
        + "can be edited or fetched again. It may take minutes; with wait false it answers at once.",
      inputSchema: schema(required: ["prompt"], common), outputSchema: madeSchema),
    Tool(
      name: "edit_image", title: "Edit images",
      description: "Makes an image of others, as a text says: \"make the sky red\", \"put the cat of the first image "
        + "into the second\". An image is named by the id of the job that has made it (\"job-…\", or \"job-…/1\" "
        + "for its second image), by a data URL, or by the path of a file that the server may read. With a mask, only "
        + "what is white in it is made anew.",
      inputSchema: schema(required: ["prompt", "image"], edits.merging(common) { $1 }),
      outputSchema: madeSchema),
    Tool(
      name: "get_job", title: "Get a job",
      description: "Says how far a job is, and gives its images when they are done.",
      inputSchema: schema(
        required: ["job_id"],
        [
          "job_id": jobID,
          "include_images": [
            "type": "boolean", "description": "Whether the images themselves are sent. Default: true.",
          ],
        ]), isReadOnly: true),
    Tool(
      name: "list_jobs", title: "List jobs", description: "Lists jobs with their prompts, the newest first.",
      inputSchema: schema(
        required: [],
        [
          "limit": ["type": "integer", "minimum": 1, "maximum": 100, "description": "How many. Default: 20."],
          "after": ["type": "string", "maxLength": 100, "description": "Begin after this job."],
        ]), isReadOnly: true),
    Tool(
      name: "cancel_job", title: "Cancel a job",
      description: "Ends a job that waits or runs. One that has ended is left alone.",
      inputSchema: schema(required: ["job_id"], ["job_id": jobID])),
    Tool(
      name: "list_models", title: "List models",
      description: "Lists the models with what they can do (their pipelines), their limits of sizes and steps, the "
        + "sizes that suit them, and their defaults. The first is the one that calls without a model are for.",
      inputSchema: schema(required: [], [:]), isReadOnly: true),
  ]

  /// A schema of arguments.
  static func schema(required: [JSON], _ properties: JSONObject) -> JSON {
    [
      "type": "object", "properties": .object(properties), "required": .array(required), "additionalProperties": false,
    ]
  }

  static let jobID: JSON = ["type": "string", "minLength": 1, "maxLength": 100, "description": "The id of the job."]

  /// What the tools that make images take. What a model allows is for the gateway to say; these are its bounds for all.
  static let common: JSONObject = [
    "prompt": [
      "type": "string", "minLength": 1, "maxLength": 32_768,
      "description": "What the image shows, or how it is changed. Words to be written in it stand in quotation marks.",
    ],
    "enhance_prompt": [
      "type": "boolean",
      "description": "Whether the server's chat model rewrites the prompt; list_models says where. Default: false.",
    ],
    "negative_prompt": [
      "type": "string", "maxLength": 32_768, "description": "What to steer away from. Default: the model's own.",
    ],
    "model": ["type": "string", "maxLength": 256, "description": "One of list_models. Default: the first."],
    "n": [
      "type": "integer", "minimum": 1, "maximum": 10, "description": "Images, with consecutive seeds. Default: 1.",
    ],
    "width": [
      "type": "integer", "minimum": 16, "maximum": 16_384,
      "description": "Pixels, with height; a multiple of what list_models says. Default: the model's or the image's.",
    ],
    "height": ["type": "integer", "minimum": 16, "maximum": 16_384, "description": "Pixels, with width."],
    "seed": [
      "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991,
      "description": "The same seed gives the same image. Default: a random one, which the answer names.",
    ],
    "steps": [
      "type": "integer", "minimum": 1, "maximum": 10_000,
      "description": "Denoising steps; fewer are faster and worse. Default: the model's own.",
    ],
    "true_cfg_scale": [
      "type": "number", "minimum": 0, "maximum": 100,
      "description": "How strictly the prompt is followed; 1 switches guidance off. Default: the model's own.",
    ],
    "sampler": [
      "type": "string", "enum": .array(SamplerName.allCases.map { .string($0.rawValue) }),
      "description": "How one step leads to the next; heun takes twice the time. Default: euler.",
    ],
    "schedule": [
      "type": "string", "enum": .array(ScheduleName.allCases.map { .string($0.rawValue) }),
      "description": "Noise levels of the steps. Default: the model's own.",
    ],
    "cfg_steps": [
      "type": "integer", "minimum": 0, "maximum": 10_000,
      "description": "Guidance acts in so many steps from the first only; later ones are faster. Default: in all.",
    ],
    "cache": [
      "type": "string", "enum": .array(StepCache.Preset.allCases.map { .string($0.rawValue) }),
      "description": "Steps that change little use what others have computed: faster, not the same. Default: off.",
    ],
    "loras": [
      "type": "array", "maxItems": 8,
      "items": [
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": [
          "name": ["type": "string", "minLength": 1, "maxLength": 128],
          "scale": ["type": "number", "minimum": -10, "maximum": 10],
        ],
      ],
      "description": "Adapters that act together, by the names that list_models shows; scale is 1 by default.",
    ],
    "background": [
      "type": "string", "enum": ["auto", "opaque", "transparent"],
      "description": "Of models whose images have transparency. Default: auto.",
    ],
    "output_format": [
      "type": "string", "enum": ["png", "webp", "jpeg"], "description": "WebP and JPEG are smaller than PNG.",
    ],
    "wait": [
      "type": "boolean",
      "description": "Whether to wait for the images; without, get_job gives them later. Default: true.",
    ],
  ]

  /// What edit_image takes beside them.
  static let edits: JSONObject = [
    "image": ["type": "string", "minLength": 1, "description": "A job id, a data URL, or the path of a file."],
    "further_images": [
      "type": "array", "maxItems": 15, "items": ["type": "string", "minLength": 1],
      "description": "More images that the prompt speaks of, in order.",
    ],
    "mask": [
      "type": "string", "minLength": 1,
      "description": "An image of the same size, named in the same way: what is white is made anew.",
    ],
    "strength": [
      "type": "number", "minimum": 0, "maximum": 1,
      "description": "Begins with the image instead of editing it: how much of it is made anew.",
    ],
  ]

  /// What the tools that make images answer for programs.
  static let madeSchema: JSON = [
    "type": "object", "required": ["job_id", "status", "images"],
    "properties": [
      "job_id": ["type": "string"], "status": ["type": "string"], "size": ["type": "string"],
      "images": [
        "type": "array",
        "items": [
          "type": "object", "required": ["index", "seed", "mime_type", "bytes", "url"],
          "properties": [
            "index": ["type": "integer"], "layer": ["type": "integer"], "seed": ["type": "integer"],
            "mime_type": ["type": "string"], "bytes": ["type": "integer"],
            "url": ["type": "string", "description": "Where the gateway has it, for those who have its key."],
            "path": ["type": "string", "description": "The file that it was saved in."],
          ],
        ],
      ],
    ],
  ]
}

extension GatewayClient {
  /// Nesting and values of a document that is passed on: a page of a hundred jobs has some thousands.
  private static let maxDepth = 16, maxValues = 200_000

  /// What is at `path`, as it is.
  func document(_ path: String) async throws -> JSON { try parsed([UInt8](try await data(path))) }

  /// Ends a job; how it is now.
  func cancellation(of job: String) async throws -> JSON {
    try parsed([UInt8](try await answer(to: request("DELETE", path(of: job)))))
  }

  private func parsed(_ bytes: [UInt8]) throws -> JSON {
    do { return try JSON(bytes, maxDepth: Self.maxDepth, maxValues: Self.maxValues) } catch {
      throw GatewayClientError.notGateway(address, reason: "its answer is not JSON: \(error)")
    }
  }
}

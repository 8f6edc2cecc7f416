import CWire

extension Body {
  func check(_ envelope: FieldCheck) throws(WireError) {
    let fields = envelope.inside(name)
    switch self {
    case .register(let message): try message.check(fields)
    case .registered(let message): try message.check(fields)
    case .heartbeat(let message): try message.check(fields)
    case .heartbeatReply, .accepted: break
    case .switchModel(let model): try model.check(fields)
    case .claim(let tasks): try Claim(tasks: tasks).check(fields)
    case .servedAdapters(let message): try message.check(fields)
    case .cancel(let reason), .draining(let reason), .goodbye(let reason): try fields.reason("reason", reason)
    case .failed(let status): try status.check(fields.inside("status"))
    case .encodeRequest(let message): try message.check(fields)
    case .encodeResponse(let message): try message.check(fields)
    case .denoiseRequest(let message): try message.check(fields)
    case .progress(let message): try message.check(fields)
    case .denoiseResponse(let message): try message.check(fields)
    case .exchange(let message): try message.check(fields)
    case .decodeRequest(let message): try message.check(fields)
    case .decodeResponse(let message): try message.check(fields)
    case .encodeImageRequest(let message): try message.check(fields)
    case .encodeImageResponse(let message): try message.check(fields)
    case .runRequest(let message): try message.check(fields)
    case .runResponse(let message): try message.check(fields)
    }
  }

  func fill(_ envelope: inout Qwenimage__V1__Envelope, _ arena: CArena) {
    switch self {
    case .register(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_REGISTRATION
      envelope.registration = message.pointer(arena)
    case .registered(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_REGISTERED
      envelope.registered = message.pointer(arena)
    case .heartbeat(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_HEARTBEAT
      envelope.heartbeat = message.pointer(arena)
    case .switchModel(let model):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_SWITCH_MODEL
      envelope.switch_model = model.pointer(arena)
    case .claim(let tasks):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_CLAIM
      envelope.claim = Claim(tasks: tasks).pointer(arena)
    case .servedAdapters(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_SERVED_ADAPTERS
      envelope.served_adapters = message.pointer(arena)
    case .encodeRequest(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_REQUEST
      envelope.encode_request = message.pointer(arena)
    case .encodeResponse(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_RESPONSE
      envelope.encode_response = message.pointer(arena)
    case .denoiseRequest(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_DENOISE_REQUEST
      envelope.denoise_request = message.pointer(arena)
    case .progress(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_PROGRESS
      envelope.progress = message.pointer(arena)
    case .denoiseResponse(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_DENOISE_RESPONSE
      envelope.denoise_response = message.pointer(arena)
    case .exchange(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_EXCHANGE
      envelope.exchange = message.pointer(arena)
    case .decodeRequest(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_DECODE_REQUEST
      envelope.decode_request = message.pointer(arena)
    case .decodeResponse(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_DECODE_RESPONSE
      envelope.decode_response = message.pointer(arena)
    case .encodeImageRequest(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_IMAGE_REQUEST
      envelope.encode_image_request = message.pointer(arena)
    case .encodeImageResponse(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_IMAGE_RESPONSE
      envelope.encode_image_response = message.pointer(arena)
    case .runRequest(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_RUN_REQUEST
      envelope.run_request = message.pointer(arena)
    case .runResponse(let message):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_RUN_RESPONSE
      envelope.run_response = message.pointer(arena)
    case .heartbeatReply, .accepted, .cancel, .draining, .goodbye, .failed: fillSmall(&envelope, arena)
    }
  }

  /// The messages that have no Swift type of their own.
  private func fillSmall(_ envelope: inout Qwenimage__V1__Envelope, _ arena: CArena) {
    switch self {
    case .heartbeatReply:
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_HEARTBEAT_REPLY
      envelope.heartbeat_reply = arena.message { qwenimage__v1__heartbeat_reply__init($0) }
    case .accepted:
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_ACCEPTED
      envelope.accepted = arena.message { qwenimage__v1__accepted__init($0) }
    case .cancel(let reason):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_CANCEL
      envelope.cancel = arena.message { qwenimage__v1__cancel__init($0) }
      envelope.cancel.pointee.reason = arena.text(reason)
    case .draining(let reason):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_DRAINING
      envelope.draining = arena.message { qwenimage__v1__draining__init($0) }
      envelope.draining.pointee.reason = arena.text(reason)
    case .goodbye(let reason):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_GOODBYE
      envelope.goodbye = arena.message { qwenimage__v1__goodbye__init($0) }
      envelope.goodbye.pointee.reason = arena.text(reason)
    case .failed(let status):
      envelope.body_case = QWENIMAGE__V1__ENVELOPE__BODY_FAILED
      envelope.failed = arena.message { qwenimage__v1__failed__init($0) }
      envelope.failed.pointee.status = status.pointer(arena)
    default: preconditionFailure("\(name) has a type of its own")
    }
  }

  init(_ envelope: Qwenimage__V1__Envelope, _ fields: FieldCheck) throws(WireError) {
    switch envelope.body_case {
    case QWENIMAGE__V1__ENVELOPE__BODY_REGISTRATION:
      self = .register(try .required(envelope.registration, "registration", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_REGISTERED:
      self = .registered(try .required(envelope.registered, "registered", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_HEARTBEAT:
      self = .heartbeat(try .required(envelope.heartbeat, "heartbeat", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_HEARTBEAT_REPLY: self = .heartbeatReply
    case QWENIMAGE__V1__ENVELOPE__BODY_ACCEPTED: self = .accepted
    case QWENIMAGE__V1__ENVELOPE__BODY_CANCEL: self = .cancel(reason: String(field: envelope.cancel.pointee.reason))
    case QWENIMAGE__V1__ENVELOPE__BODY_DRAINING:
      self = .draining(reason: String(field: envelope.draining.pointee.reason))
    case QWENIMAGE__V1__ENVELOPE__BODY_GOODBYE: self = .goodbye(reason: String(field: envelope.goodbye.pointee.reason))
    case QWENIMAGE__V1__ENVELOPE__BODY_FAILED:
      self = .failed(try .required(envelope.failed.pointee.status, "status", of: fields.inside("failed")))
    case QWENIMAGE__V1__ENVELOPE__BODY_SWITCH_MODEL:
      self = .switchModel(try .required(envelope.switch_model, "switch_model", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_CLAIM:
      let claim: Claim = try .required(envelope.claim, "claim", of: fields)
      self = .claim(claim.tasks)
    case QWENIMAGE__V1__ENVELOPE__BODY_SERVED_ADAPTERS:
      self = .servedAdapters(try .required(envelope.served_adapters, "served_adapters", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_REQUEST:
      self = .encodeRequest(try .required(envelope.encode_request, "encode_request", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_RESPONSE:
      self = .encodeResponse(try .required(envelope.encode_response, "encode_response", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_DENOISE_REQUEST:
      self = .denoiseRequest(try .required(envelope.denoise_request, "denoise_request", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_PROGRESS:
      self = .progress(try .required(envelope.progress, "progress", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_DENOISE_RESPONSE:
      self = .denoiseResponse(try .required(envelope.denoise_response, "denoise_response", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_EXCHANGE:
      self = .exchange(try .required(envelope.exchange, "exchange", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_DECODE_REQUEST:
      self = .decodeRequest(try .required(envelope.decode_request, "decode_request", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_DECODE_RESPONSE:
      self = .decodeResponse(try .required(envelope.decode_response, "decode_response", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_IMAGE_REQUEST:
      self = .encodeImageRequest(try .required(envelope.encode_image_request, "encode_image_request", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_ENCODE_IMAGE_RESPONSE:
      self = .encodeImageResponse(try .required(envelope.encode_image_response, "encode_image_response", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_RUN_REQUEST:
      self = .runRequest(try .required(envelope.run_request, "run_request", of: fields))
    case QWENIMAGE__V1__ENVELOPE__BODY_RUN_RESPONSE:
      self = .runResponse(try .required(envelope.run_response, "run_response", of: fields))
    default: throw .missing(field: "body")
    }
  }
}

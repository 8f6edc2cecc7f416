import GatewayAPI
import HTTPTypes
import Hummingbird
import NIOCore
import StrictJSON

/// Errors as A1111's clients look for them: FastAPI's list of what is wrong with the body's fields, else one text, both
/// beside the four members of A1111's own errors.
enum WebUIError {
  /// Whether a request is for A1111's API. Clients whose address ends with a slash send two of them, which the router
  /// takes for one.
  static func isAnswer(to request: Request) -> Bool {
    let path = request.uri.path.drop { $0 == "/" }
    return path.hasPrefix("sdapi/") || path == "internal/ping"
  }

  /// Of fields that are wrong FastAPI says 422.
  static func status(of error: APIError) -> HTTPResponse.Status {
    let row = error.code.row
    return row.status == .badRequest && error.param != nil ? .unprocessableContent : row.status
  }

  static func body(of error: APIError) -> JSON {
    var detail = JSON.string(error.message)
    if status(of: error) == .unprocessableContent, let param = error.param {
      let place = param.split(separator: ".").map { JSON.string(String($0)) }
      detail = [["loc": .array(["body"] + place), "msg": .string(error.message), "type": .string(error.code.rawValue)]]
    }
    return ["error": .string(error.code.rawValue), "detail": detail, "body": "", "errors": .string(error.message)]
  }
}

extension Response {
  /// `value` as a JSON body, as it is.
  static func document(_ value: JSON, status: HTTPResponse.Status = .ok) -> Response {
    Response(
      status: status, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: value.bytes)))
  }

  /// `error` in the shape of A1111's API, with the headers of this server's other errors.
  static func webUIError(_ error: APIError) throws -> Response {
    var response = Response.document(WebUIError.body(of: error), status: WebUIError.status(of: error))
    for field in try Response.error(error).headers where response.headers[field.name] == nil {
      response.headers.append(field)
    }
    return response
  }
}

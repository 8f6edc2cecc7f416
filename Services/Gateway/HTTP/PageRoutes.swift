import HTTPTypes
import Hummingbird
import NIOCore

/// `GET /`: a page for people, made of the files in `Page/`. It uses nothing but the public API, by relative addresses.
struct PageRoutes: Sendable {
  /// Where a proxy shows the page, without a slash at its end; empty: at `/`.
  let basePath: String

  func add(to router: Router<GatewayContext>) {
    // Without the slash at its end, the page's relative addresses would lead beside it.
    if !basePath.isEmpty {
      let redirect = Response(status: .temporaryRedirect, headers: [.location: basePath + "/"])
      router.serve(RouterPath(basePath), [(.get, { _, _ in redirect })])
    }
    for (path, bytes) in Self.files {
      let kind = path.hasSuffix(".js") ? "javascript" : path.hasSuffix(".css") ? "css" : "html"
      var headers = Self.headers
      headers[.contentType] = "text/\(kind); charset=utf-8"
      let response = Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
      router.serve(RouterPath(path), [(.get, { _, _ in response })])
    }
  }

  /// The files by their paths.
  private static let files: KeyValuePairs<String, [UInt8]> = [
    "/": PackageResources.index_html,
    "/page.css": PackageResources.page_css,
    "/editor.css": PackageResources.editor_css,
    "/views.css": PackageResources.views_css,
    "/page.js": PackageResources.page_js,
    "/api.js": PackageResources.api_js,
    "/compare.js": PackageResources.compare_js,
    "/composer.js": PackageResources.composer_js,
    "/dom.js": PackageResources.dom_js,
    "/errors.js": PackageResources.errors_js,
    "/extend.js": PackageResources.extend_js,
    "/form.js": PackageResources.form_js,
    "/gallery.js": PackageResources.gallery_js,
    "/grid.js": PackageResources.grid_js,
    "/gridtable.js": PackageResources.gridtable_js,
    "/i18n.js": PackageResources.i18n_js,
    "/images.js": PackageResources.images_js,
    "/jobs.js": PackageResources.jobs_js,
    "/mask.js": PackageResources.mask_js,
    "/metadata.js": PackageResources.metadata_js,
    "/models.js": PackageResources.models_js,
    "/pair.js": PackageResources.pair_js,
    "/parameters.js": PackageResources.parameters_js,
    "/picks.js": PackageResources.picks_js,
    "/pipelines.js": PackageResources.pipelines_js,
    "/presets.js": PackageResources.presets_js,
    "/raster.js": PackageResources.raster_js,
    "/restore.js": PackageResources.restore_js,
    "/results.js": PackageResources.results_js,
    "/sampling.js": PackageResources.sampling_js,
    "/settings.js": PackageResources.settings_js,
    "/shortcuts.js": PackageResources.shortcuts_js,
    "/store.js": PackageResources.store_js,
    "/strings.js": PackageResources.strings_js,
    "/thumbnails.js": PackageResources.thumbnails_js,
    "/viewer.js": PackageResources.viewer_js,
    "/views.js": PackageResources.views_js,
    "/workers.js": PackageResources.workers_js,
  ]

  /// The routes of the page, as they are registered.
  static let paths = files.map(\.key)

  /// The page loads from this server alone, and no other site may frame it, as a protection against clickjacking.
  private static let headers: HTTPFields = [
    .contentSecurityPolicy:
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
      + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    .xContentTypeOptions: "nosniff", HTTPField.Name("referrer-policy")!: "no-referrer", .cacheControl: "no-cache",
  ]
}
